"""A path to a service that a test can break: it resets connections, swallows everything, or refuses to be taken."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

_SIZE = 1 << 16
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 s: closing sends RST."""


class FaultyPath:
    """Listens on a port of this machine and passes everything on to a service on a unix socket.

    Args:
        target: The service's address, `unix:PATH`.
    """

    def __init__(self, target: str) -> None:
        self._service = target.removeprefix("unix:")
        self._port = 0
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._connections: set[asyncio.Task[None]] = set()
        self.connections_count = 0
        """Connections that were made so far."""

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.refuse()

    @property
    def target(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self._port}"

    async def accept(self) -> None:
        """Takes connections; again, after `refuse`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Resets what is open and refuses new connections, as a service that is not running."""
        assert self._server is not None
        self._server.close()
        await self.reset()
        await self._server.wait_closed()

    async def reset(self) -> None:
        """Resets all connections that are open. New ones are taken."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def swallow(self) -> None:
        """Passes nothing on any more, in no direction; connections stay open, and new ones are taken."""
        self._open.clear()

    def deliver(self) -> None:
        """Passes on again what comes, and what was held meanwhile."""
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._connections.add(me)
        self.connections_count += 1
        to_service: asyncio.StreamWriter | None = None
        try:
            from_service, to_service = await asyncio.open_unix_connection(self._service)
            there = asyncio.create_task(self._pass_on(reader, to_service))
            try:
                await self._pass_on(from_service, writer)
            finally:
                there.cancel()
                await asyncio.gather(there, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(me)
            peer: socket.socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            for each in (writer, to_service):
                if each is not None:
                    each.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_SIZE):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
