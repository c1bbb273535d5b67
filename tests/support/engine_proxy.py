"""A way to a Docker Engine that a test can cut, and that may speak TLS: the engine's bytes, passed on as they are."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.engine import Engine

_SIZE = 1 << 16


class EngineProxy:
    """Listens on a unix socket or a port of this machine and passes everything on to an engine's socket.

    Args:
        engine: The engine, on a unix socket.
        at: Path of the unix socket to listen on; None: a free port of 127.0.0.1.
        tls: Speak TLS.
    """

    def __init__(self, engine: Engine, *, at: Path | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._engine = engine.docker_host.removeprefix("unix://")
        self._at = at
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        if self._at is not None:
            self._server = await asyncio.start_unix_server(self._serve, self._at)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    @property
    def docker_host(self) -> str:
        """Its address, as DOCKER_HOST spells it."""
        if self._at is not None:
            return f"unix://{self._at}"
        assert self._server is not None
        return f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def cut(self) -> None:
        """Breaks all connections that are open, as the end of an engine does, or of what is between."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._connections.add(me)
        engine: asyncio.StreamWriter | None = None
        try:
            from_engine, engine = await asyncio.open_unix_connection(self._engine)
            there = asyncio.create_task(_pass_on(reader, engine))
            try:
                await _pass_on(from_engine, writer)
            finally:
                there.cancel()
                await asyncio.gather(there, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(me)
            for each in (writer, engine):
                if each is not None:
                    each.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Passes on until the end, which is passed on too where that is possible."""
    while data := await reader.read(_SIZE):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        with contextlib.suppress(OSError):
            writer.write_eof()
