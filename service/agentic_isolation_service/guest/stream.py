"""The byte stream that a link runs over: what providers open, and its kind for sockets.

It pushes: what comes is passed on at once, in the event loop's own call, and what goes is written at once. Each task
between a socket and a channel would cost every command a turn of the loop.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Protocol, Self, cast


class Receiver(Protocol):
    """Whom a stream passes on what comes. Neither method may raise or block."""

    def received(self, data: bytes) -> None:
        """Takes the next bytes."""

    def ended(self, error: OSError | None) -> None:
        """Is told once that nothing more will come, and what broke the stream where it has not ended in order."""


class ByteStream(Protocol):
    """A connection to a guest, as a provider opens it."""

    @property
    def backlog(self) -> int:
        """Bytes that were written and that the other side has not taken yet."""

    def start(self, receiver: Receiver) -> None:
        """Begins to pass on what comes; what came before is kept for it. Called once."""

    def write(self, data: bytes) -> None:
        """Sends all of `data` as the other side takes it, and never waits. After the stream's end it does nothing."""

    def abort(self) -> None:
        """Begins to end the stream, without what was not taken yet. May be called twice."""

    async def aclose(self) -> None:
        """Aborts it and waits until nothing of it is left. May be called twice."""


class SocketStream(asyncio.Protocol):
    """A ByteStream over a unix socket. Made by `connect` or `over`."""

    def __init__(self) -> None:
        self._closed = asyncio.Event()
        self._receiver: Receiver | None = None
        self._early: list[bytes] = []
        """What has come before there is somebody to take it: uvloop reads on when it is asked not to begin."""
        self._error: OSError | None = None

    @classmethod
    async def connect(cls, path: Path) -> Self:
        """Connects to the socket at a path. Raises OSError where nothing listens there."""
        _, stream = await asyncio.get_running_loop().create_unix_connection(cls, str(path))
        return stream

    @classmethod
    async def over(cls, connection: socket.socket) -> Self:
        """Takes over a connected, non-blocking socket. Raises OSError where the connection has broken."""
        try:
            _, stream = await asyncio.get_running_loop().create_unix_connection(cls, sock=connection)
        except BaseException:
            connection.close()
            raise
        return stream

    @property
    def backlog(self) -> int:
        """Bytes that were written and not taken yet."""
        return self._transport.get_write_buffer_size()

    def start(self, receiver: Receiver) -> None:
        """Begins to pass on what comes."""
        self._receiver = receiver
        early, self._early = self._early, []
        for data in early:
            receiver.received(data)
        if self._closed.is_set():
            receiver.ended(self._error)
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Sends all of `data`."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        """Closes the socket."""
        self._transport.abort()

    async def aclose(self) -> None:
        """Closes the socket and waits until it is."""
        self.abort()
        await self._closed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Is called by asyncio. Nothing is read before there is somebody to take it."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Is called by asyncio."""
        if self._receiver is not None:
            self._receiver.received(data)
        else:
            self._early.append(data)
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Is called by asyncio."""
        self._error = error if isinstance(error, OSError) else None
        self._closed.set()
        if self._receiver is not None:
            self._receiver.ended(self._error)
