"""A path to a service that a test can break."""

from __future__ import annotations

import asyncio

from tests.support.relay import Relay, Serve


class FaultyPath(Relay):
    """Listens on a port of this machine, always the same, and passes everything on to a service on a unix socket.

    Args:
        target: The service's address, `unix:PATH`.
    """

    def __init__(self, target: str) -> None:
        super().__init__(self._at_one_port, lambda: asyncio.open_unix_connection(target.removeprefix("unix:")))
        self._port = 0

    @property
    def target(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self._port}"

    async def _at_one_port(self, serve: Serve) -> asyncio.Server:
        server = await asyncio.start_server(serve, "127.0.0.1", self._port)
        self._port = server.sockets[0].getsockname()[1]
        return server
