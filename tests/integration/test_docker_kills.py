"""Programs that use Docker workspaces are killed at random moments. When the leases have run out, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from pathlib import Path

import pytest

from agentic_isolation import SecurityConfig, WorkspaceConfig
from agentic_isolation_service.core.ports import PlaceSpec
from agentic_isolation_service.providers.docker import DockerProvider
from tests.engine import Engine
from tests.engine.plugin import RUN_LABEL
from tests.support.engine_leaks import containers, emptied
from tests.support.eventually import eventually
from tests.support.service import python_environment

pytestmark = pytest.mark.docker
KILLS = 50
AT_A_TIME = 4
LONGEST_LIFE = 2.0
"""Seconds, in which a client has made a workspace, used it and removed it several times."""


async def killed_client(runtime: str, life: float, directory: Path) -> int:
    """Runs a client, kills it after so many seconds, and returns how many workspaces it has used."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.busy_client", runtime,
        env=python_environment(TMPDIR=str(directory)), cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert client.stdout is not None
    try:
        await client.stdout.readline()
        await asyncio.sleep(life)
    finally:
        with contextlib.suppress(ProcessLookupError):
            client.kill()
        uses, complaints = await client.communicate()
    assert b"Traceback" not in complaints, complaints.decode()
    return uses.count(b"used")


@pytest.mark.timeout(180)
async def test_killed_clients_leave_nothing(engine: Engine, directory: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    room = asyncio.Semaphore(AT_A_TIME)
    gvisor = "runsc" in engine.runtimes

    async def one(number: int) -> int:
        runtime = "gvisor" if gvisor and number % 5 == 0 else "runc"
        life = chance.uniform(0, LONGEST_LIFE)
        async with room:
            return await killed_client(runtime, life, directory)

    uses = await asyncio.gather(*(one(number) for number in range(KILLS)))
    print(f"{sum(uses)} workspaces were used")
    assert sum(uses) > 0

    # Each that runs has a guest, which ends it. One that was never started has none: the next service sweeps it.
    await eventually(lambda: all(each["State"] == "created" for each in containers(engine)), "the leases have run out")
    never_started = len(containers(engine))
    print(f"{never_started} were killed between creating a container and starting it")
    name, _, value = RUN_LABEL.partition("=")
    following = DockerProvider(default_image=engine.images.python, labels={name: value}, stale_after=1)
    await asyncio.sleep(2)  # so old they must be
    place = await following.create(
        PlaceSpec("ws-following", WorkspaceConfig(security=SecurityConfig(use_gvisor=False), lease=60), bytes(32))
    )
    await following.destroy(place)
    await following.aclose()
    await emptied(engine)
