"""Workspaces of this project out of a pool that its service keeps."""

from __future__ import annotations

import asyncio

from agentic_isolation import ServiceClient
from benchmarks.contenders.ours import Ours

_PATIENCE = 60.0
_PAUSE = 0.05


class Pooled(Ours):
    """A service with a pool of workspaces of one kind.

    Args:
        runtime: local, runc or gvisor.
    """

    package = ""

    def __init__(self, *, runtime: str) -> None:
        super().__init__(runtime=runtime, served=True)

    def configuration(self) -> str:
        """Returns the pool's template: what `create` asks for."""
        provider = "local" if self.runtime == "local" else "docker"
        lines = ["[[pool]]", 'name = "benchmark"', f'provider = "{provider}"', "min = 2", "max = 2"]
        if self.runtime != "local":
            lines += ["[pool.security]", f"use_gvisor = {str(self.runtime == 'gvisor').lower()}"]
        return "\n".join(lines)

    async def before_create(self) -> None:
        """Waits until the pool is full, and the machine has nothing else to do."""
        async with asyncio.timeout(_PATIENCE), ServiceClient(self.target or "") as service:
            while not await _full(service):  # noqa: ASYNC110 - the service tells nobody
                await asyncio.sleep(_PAUSE)


async def _full(service: ServiceClient) -> bool:
    pools = getattr(await service.info(), "pools", ())
    return all(pool.ready >= pool.wanted and not pool.refilling for pool in pools)
