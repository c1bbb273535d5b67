"""Programs that use Docker workspaces are killed at random moments. When the leases have run out, nothing is left."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from agentic_isolation import SecurityConfig, WorkspaceConfig
from agentic_isolation_service.core.ports import PlaceSpec
from agentic_isolation_service.providers.docker import DockerProvider
from tests.engine import Engine
from tests.engine.plugin import RUN_LABEL
from tests.support.busy_client import STEPS
from tests.support.engine_leaks import containers, emptied
from tests.support.eventually import eventually
from tests.support.fork_server import ForkServer
from tests.support.program import python_environment

pytestmark = pytest.mark.docker
KILLS = 50
AT_A_TIME = 4
LONGEST_STEP = 0.5
"""Seconds, within which the next step is on its way, or the one after it."""


async def killed_client(runtime: str, steps: int, delay: float, directory: Path) -> str:
    """Forks a client, kills it so many seconds after so many steps, and returns the last step that it had done."""
    environment = python_environment(TMPDIR=str(directory))
    assert ForkServer.shared is not None
    with tempfile.TemporaryFile() as errors:
        client = ForkServer.shared.start("tests.support.busy_client", runtime, environment=environment, stderr=errors)
        with client.stdout:
            done = b""
            try:
                for _ in range(steps):
                    done += await asyncio.to_thread(client.stdout.readline)
                await asyncio.sleep(delay)
            finally:
                client.kill()
                done += await asyncio.to_thread(client.stdout.read)
                client.wait()
        errors.seek(0)
        complaints = errors.read()
    assert b"Traceback" not in complaints, complaints.decode()
    return done.decode().split()[-1]


@pytest.mark.timeout(180)
async def test_killed_clients_leave_nothing(engine: Engine, directory: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    room = asyncio.Semaphore(AT_A_TIME)
    gvisor = "runsc" in engine.runtimes

    async def one(number: int) -> str:
        runtime = "gvisor" if gvisor and number % 5 == 0 else "runc"
        steps, delay = chance.randint(1, len(STEPS)), chance.uniform(0, LONGEST_STEP)
        async with room:
            return await killed_client(runtime, steps, delay, directory)

    last_steps = Counter(await asyncio.gather(*(one(number) for number in range(KILLS))))
    print(f"killed after {dict(last_steps)}")

    # Each that runs has a guest, which ends it. One that was never started has none: the next service sweeps it.
    await eventually(lambda: all(each["State"] == "created" for each in containers(engine)), "the leases have run out")
    never_started = len(containers(engine))
    print(f"{never_started} were killed between creating a container and starting it")
    name, _, value = RUN_LABEL.partition("=")
    following = DockerProvider(
        service_id="test", default_image=engine.images.python, labels={name: value}, stale_after=1
    )
    await asyncio.sleep(2)  # so old they must be
    config = WorkspaceConfig(security=SecurityConfig(use_gvisor=False), lease=60)
    try:
        await following.destroy(await following.create(PlaceSpec("ws-following", config, bytes(32))))
    finally:
        await following.aclose()
    await emptied(engine)
