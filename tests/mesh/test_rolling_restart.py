"""Replicas are restarted one after the other under load, and no client sees anything of it.

MESH_SECONDS makes it longer than the few seconds that two restarts take; then it prints what has happened:

    MESH_SECONDS=300 make test-python PYTEST_ARGS='-s tests/mesh/test_rolling_restart.py'
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from agentic_isolation._cleanup import finish
from tests.mesh.load import Load
from tests.support.envoy import Envoy
from tests.support.eventually import eventually
from tests.support.replica import replicas

SECONDS = float(os.environ.get("MESH_SECONDS", "0"))
CLIENTS = 3
"""Of each kind."""
LONGEST = 20.0
"""Seconds that a call may take at most while its replica is restarted, on a machine that does much else."""


@pytest.fixture
def ground(forks: None) -> None:
    """It has a mesh of its own."""


@pytest.mark.timeout(SECONDS + 120)
async def test_rolling_restart_under_load(directory: Path) -> None:
    async with replicas(directory, "one", "two", options=("--grace", "5")) as members:
        envoy = await asyncio.to_thread(Envoy, directory / "envoy", {replica.name: replica.port for replica in members})
        try:
            load = Load(envoy.target)
            began, restarts = time.monotonic(), 0
            async with asyncio.TaskGroup() as group:
                for _ in range(CLIENTS):
                    for client in (load.our_client, load.any_client, load.reader):
                        group.create_task(client())
                while restarts < len(members) or time.monotonic() < began + SECONDS:
                    replica = members[restarts % len(members)]
                    await _works(load)
                    await finish(replica.restart())  # or nobody could clean up after a failure
                    restarts += 1
                    await eventually(lambda: _all_healthy(envoy, len(members)), "Envoy has found it again")
                await _works(load)
                load.end()
            counts = await envoy.counted()
        finally:
            envoy.kill()
        assert load.longest < LONGEST
        assert counts["upstream_rq_retry"] > 0, "nothing was in the way of any call"
        for replica in members:
            assert not await replica.workspaces(), "a workspace was made twice, or not destroyed"
        print(
            f"\n{restarts} restarts in {time.monotonic() - began:.0f} s: {load.call_count} calls, "
            f"{load.command_count} commands, {load.stream_count} streams, {load.workspace_count} workspaces; "
            f"{counts['upstream_rq_retry']} repeats by Envoy, {load.resumed_count} streams resumed, "
            f"{load.endless_lines} lines of endless streams; the longest call took {load.longest:.2f} s; failed: 0"
        )
    assert not "".join(replica.complaints for replica in members)


async def _works(load: Load) -> None:
    """Waits until clients have got something done."""
    before = load.workspace_count
    await eventually(lambda: load.workspace_count >= before + CLIENTS, "clients get on")


async def _all_healthy(envoy: Envoy, count: int) -> bool:
    return (await envoy.counted())["membership_healthy"] == count
