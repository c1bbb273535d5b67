"""The network path between clients and service: passes on, or does what networks do on bad days."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

_SIZE = 1 << 16
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class NetworkPath:
    """A TCP proxy on a free port of 127.0.0.1.

    Args:
        port: The service's port.
    """

    def __init__(self, port: int) -> None:
        self._service_port = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._passable = asyncio.Event()
        self._passable.set()
        self._delay = 0.0
        self.connection_count = 0
        """Connections so far."""
        self.byte_count = 0
        """Bytes passed on so far, both ways."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self.reset()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """Where clients connect to."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def reset(self) -> None:
        """Ends all connections by a TCP reset, to both sides."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def blackholed(self) -> AsyncIterator[None]:
        """Takes connections meanwhile, and passes nothing on; afterwards what was held back arrives, late."""
        self._passable.clear()
        try:
            yield
        finally:
            self._passable.set()

    @contextlib.asynccontextmanager
    async def delayed(self, seconds: float) -> AsyncIterator[None]:
        """Holds each piece of data back for up to so many seconds meanwhile; order is kept."""
        self._delay = seconds
        try:
            yield
        finally:
            self._delay = 0.0

    async def _serve(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._connections.add(me)
        self.connection_count += 1
        service: asyncio.StreamWriter | None = None
        try:
            await self._passable.wait()
            service_reader, service = await asyncio.open_connection("127.0.0.1", self._service_port)
            there = asyncio.create_task(self._pass_on(client_reader, service))
            try:
                await self._pass_on(service_reader, client)
            finally:
                there.cancel()
                await asyncio.gather(there, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(me)
            for writer in (client, service):
                if writer is not None:
                    _reset(writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_SIZE):
            await self._passable.wait()
            if self._delay:
                await asyncio.sleep(random.uniform(0, self._delay))
            writer.write(data)
            self.byte_count += len(data)
            await writer.drain()
        await self._passable.wait()
        with contextlib.suppress(OSError):
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
