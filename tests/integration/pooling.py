"""A service with a pool, for tests of what comes out of it."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.lasting import LastingService
from tests.integration.wire import Stub
from tests.support.eventually import eventually


class PoolingService(LastingService):
    """A service that keeps its state in a directory, and places of a kind ready.

    Args:
        kind: As KINDS of tests.integration.lasting.
        directory: Where it listens and keeps its state.
        least: Places that it keeps ready.
        most: How many it may.
        more: More of the pool's settings, in TOML.
        options: More options of `serve`.
        failing: As LastingService.
    """

    def __init__(
        self,
        kind: str,
        directory: Path,
        *options: str,
        least: int = 1,
        most: int = 1,
        more: str = "",
        failing: bool = False,
    ) -> None:
        self._file = directory / "config.toml"
        super().__init__(directory, "--config", str(self._file), *options, failing=failing)
        provider = "local" if kind == "local" else "docker"
        lines = ["[[pool]]", f'provider = "{provider}"', f"min = {least}", f"max = {most}", more]
        if kind != "local":
            lines.append(f"security = {{ use_gvisor = {json.dumps(kind == 'gvisor')} }}")
        self._content = "\n".join(lines)
        self.configure()

    def configure(self, *, pools: bool = True) -> None:
        """Has the service's next process keep places ready, or none."""
        self._file.write_text(self._content if pools else "")

    def pooled(self) -> set[str]:
        """Returns the ids of all places that are written down as a pool's."""
        with contextlib.closing(sqlite3.connect(self.state / "registry.db")) as db:
            rows = db.execute("SELECT workspace_id, record FROM workspaces").fetchall()
        return {workspace_id for workspace_id, record in rows if json.loads(record).get("pool")}

    async def drain(self) -> None:
        """Has a process without pools remove what is kept ready; the next one keeps places ready again."""
        if self.runs:
            await self.end(signal.SIGTERM)
        self.configure(pools=False)
        async with self.running():
            pass
        await self.end(signal.SIGTERM)
        self.configure()

    async def aclose(self) -> None:
        """Removes what it holds and keeps ready, and ends it."""
        try:
            await self.drain()
        finally:
            self.configure(pools=False)
            await super().aclose()
        assert not self.pooled()


@contextlib.asynccontextmanager
async def pooling(service: PoolingService) -> AsyncIterator[PoolingService]:
    """Yields a service that does not run yet, and removes what it holds in the end."""
    try:
        yield service
    finally:
        await service.aclose()


async def pool_of(stub: Stub) -> pb.PoolInfo:
    """Returns what a service says of its pool."""
    [pool] = (await stub.GetServerInfo(pb.GetServerInfoRequest())).pools
    return pool


async def filled(stub: Stub) -> pb.PoolInfo:
    """Waits until as many places are ready as there should be."""
    found = pb.PoolInfo()

    async def is_full() -> bool:
        found.CopyFrom(await pool_of(stub))
        return 0 < found.ready_count == found.wanted_count

    await eventually(is_full, "the pool is filled", within=30)
    return found
