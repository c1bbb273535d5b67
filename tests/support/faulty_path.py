"""A path to a service that a test can break."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from tests.support.relay import Relay, Serve, Streams


class FaultyPath(Relay):
    """Listens on a port of this machine, always the same, and passes everything on to a service.

    Args:
        target: The service's address, `unix:PATH` or `host:port`.
    """

    def __init__(self, target: str) -> None:
        super().__init__(self._at_one_port, lambda: _connection_to(target))
        self._port = 0

    @property
    def target(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self._port}"

    async def _at_one_port(self, serve: Serve) -> asyncio.Server:
        server = await asyncio.start_server(serve, "127.0.0.1", self._port)
        self._port = server.sockets[0].getsockname()[1]
        return server


async def _connection_to(target: str) -> Streams:
    if target.startswith("unix:"):
        return await asyncio.open_unix_connection(target.removeprefix("unix:"))
    host, _, port = target.rpartition(":")
    return await asyncio.open_connection(host, int(port))


@contextlib.asynccontextmanager
async def breaking(path: FaultyPath, seed: int, *, pause: float = 0.3) -> AsyncIterator[None]:
    """Resets all connections at random moments meanwhile, and refuses new ones for a while now and then."""
    moments = random.Random(seed)

    async def break_it() -> None:
        while True:
            await asyncio.sleep(moments.uniform(0, 2 * pause))
            if moments.random() < 0.3:
                try:
                    await path.refuse()
                    await asyncio.sleep(moments.uniform(0, pause))
                finally:
                    await path.accept()
            else:
                await path.reset()

    before = path.connection_count
    breaker = asyncio.create_task(break_it())
    try:
        yield
    finally:
        breaker.cancel()
        await asyncio.gather(breaker, return_exceptions=True)
    assert path.connection_count > before, "it did break"
