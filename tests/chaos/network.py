"""The network path between clients and service: passes on, or does what networks do on bad days."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.support.relay import Relay


class NetworkPath(Relay):
    """A way from a free port of 127.0.0.1 to a service's.

    Args:
        port: The service's port.
    """

    def __init__(self, port: int) -> None:
        super().__init__(
            lambda serve: asyncio.start_server(serve, "127.0.0.1", 0),
            lambda: asyncio.open_connection("127.0.0.1", port),
        )

    @contextlib.asynccontextmanager
    async def blackholed(self) -> AsyncIterator[None]:
        """Takes connections meanwhile, and passes nothing on; afterwards what was held back arrives, late."""
        self.hold()
        try:
            yield
        finally:
            self.release()

    @contextlib.asynccontextmanager
    async def delayed(self, seconds: float) -> AsyncIterator[None]:
        """Holds each piece of data back for up to so many seconds meanwhile; order is kept."""
        self.delay = seconds
        try:
            yield
        finally:
            self.delay = 0.0
