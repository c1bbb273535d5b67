"""The byte stream to a guest whose unix socket can be connected to from this host."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

_STREAM_LIMIT = 1 << 18


class SocketStream:
    """A byte stream over a unix socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, path: Path) -> SocketStream:
        """Connects to a socket. Raises OSError where nothing listens there."""
        return cls(*await asyncio.open_unix_connection(path, limit=_STREAM_LIMIT))

    @classmethod
    async def over(cls, connection: socket.socket) -> SocketStream:
        """Takes over a connected, non-blocking socket. Raises OSError where the connection has broken."""
        return cls(*await asyncio.open_unix_connection(sock=connection, limit=_STREAM_LIMIT))

    async def receive(self, size: int) -> bytes:
        """Returns 1 to `size` bytes, or none at the end."""
        return await self._reader.read(size)

    async def send(self, data: bytes) -> None:
        """Sends all of `data`."""
        self._writer.write(data)
        await self._writer.drain()

    async def aclose(self) -> None:
        """Closes the socket."""
        if self._writer.transport.get_write_buffer_size():
            # What a stopped guest has not taken would keep the socket open until it goes on.
            self._writer.transport.abort()
        self._writer.close()
        with contextlib.suppress(OSError):
            # All who wait share one future, which a cancelled one would cancel for the others.
            await asyncio.shield(self._writer.wait_closed())
