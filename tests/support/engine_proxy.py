"""A way to a Docker Engine that a test can cut, and that may speak TLS."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from tests.engine import Engine
from tests.support.relay import Relay, Serve


class EngineProxy(Relay):
    """Listens on a unix socket or a port of this machine and passes everything on to an engine's socket.

    Args:
        engine: The engine, on a unix socket.
        at: Path of the unix socket to listen on; None: a free port of 127.0.0.1.
        tls: Speak TLS.
    """

    def __init__(self, engine: Engine, *, at: Path | None = None, tls: ssl.SSLContext | None = None) -> None:
        async def listen(serve: Serve) -> asyncio.Server:
            if at is not None:
                return await asyncio.start_unix_server(serve, at)
            return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)

        super().__init__(listen, lambda: asyncio.open_unix_connection(engine.docker_host.removeprefix("unix://")))
        self._at = at

    @property
    def docker_host(self) -> str:
        """Its address, as DOCKER_HOST spells it."""
        return f"tcp://127.0.0.1:{self.port}" if self._at is None else f"unix://{self._at}"
