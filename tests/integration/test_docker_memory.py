"""Sandboxes of gVisor's that use up their memory while nobody watches: they are ended, and it is said why."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentic_isolation import WorkspaceLostError
from agentic_isolation_service.config import DockerConfig
from agentic_isolation_service.core.ports import Place, Provider
from agentic_isolation_service.providers.docker import DockerProvider
from tests.engine import Engine
from tests.support.engine_leaks import containers
from tests.support.engine_proxy import EngineProxy
from tests.support.eventually import eventually
from tests.support.jobs import python
from tests.support.own_engine import own_engine
from tests.support.places import PlaceMaker, adopted, new_id, provider_of, session_of, spec_of, start
from tests.turns import WAITS

pytestmark = [pytest.mark.docker, pytest.mark.gvisor, WAITS]
MEMORY = "256M"
# Slowly, so that the kernel kills one process of the sandbox and the rest hangs.
HUNGRY = """
import time
held = []
while True:
    held.append(bytearray(b"x") * (1 << 22))
    time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def quiet() -> Iterator[Engine]:
    """An engine that nobody else uses: engines keep their last 256 events only, others' too."""
    with own_engine() as engine:
        yield engine


@pytest.fixture
def engine(quiet: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("DOCKER_HOST", quiet.docker_host)
    return quiet


@contextlib.asynccontextmanager
async def providing(directory: Path, service_id: str) -> AsyncIterator[Provider]:
    provider = provider_of("gvisor", service_id, directory)
    try:
        yield provider
    finally:
        await provider.aclose()


def has_been_out_of_memory(engine: Engine, workspace_id: str) -> bool:
    filters = json.dumps({"event": ["oom"], "container": [f"agentic-{workspace_id}"]})
    query = {"since": "0", "until": str(int(time.time()) + 1), "filters": filters}
    return bool(engine.api.request("GET", "/events", query=query))


def is_there(engine: Engine, workspace_id: str) -> bool:
    return bool(containers(engine, f"agentic-isolation.workspace-id={workspace_id}"))


async def use_up_memory(engine: Engine, provider: Provider, workspace_id: str) -> None:
    """Lets a workload do that."""
    session = session_of(provider, Place(workspace_id, "runsc"))
    await start(session, python(HUNGRY))
    await eventually(lambda: has_been_out_of_memory(engine, workspace_id), "the kernel has killed a process")
    await session.aclose()


async def is_told_why(provider: Provider, workspace_id: str, why: str = "out of memory") -> None:
    session = session_of(provider, Place(workspace_id, "runsc"))
    with pytest.raises(WorkspaceLostError, match=why):
        await session.call({"op": "info"})
    await session.aclose()


async def test_memory_that_was_used_up_while_no_service_was_there(engine: Engine, directory: Path) -> None:
    """Whether the next service has begun to listen when it adopts a workspace, or not yet."""
    ids, service_id = [new_id(), new_id()], new_id()
    with PlaceMaker("gvisor", directory, *ids, service_id=service_id, memory=MEMORY) as maker:
        maker.kill()
        async with providing(directory, service_id) as unwatching:
            await asyncio.gather(*(use_up_memory(engine, unwatching, workspace_id) for workspace_id in ids))
            # Of some the kernel kills a process without which the others end, too: their engine removes these itself.
            assert any(is_there(engine, workspace_id) for workspace_id in ids), "what is left of one hangs"
        async with providing(directory, service_id) as provider:
            for workspace_id in ids:
                place = adopted(provider, "gvisor", workspace_id)
                await eventually(lambda: not is_there(engine, workspace_id), "it is ended")  # noqa: B023
                await is_told_why(provider, workspace_id)
                await provider.destroy(place)


async def test_memory_that_is_used_up_after_an_adoption(engine: Engine, directory: Path) -> None:
    workspace_id, service_id = new_id(), new_id()
    with PlaceMaker("gvisor", directory, workspace_id, service_id=service_id, memory=MEMORY) as maker:
        maker.kill()
        async with providing(directory, service_id) as provider:
            place = adopted(provider, "gvisor", workspace_id)
            await use_up_memory(engine, provider, workspace_id)
            await eventually(lambda: not is_there(engine, workspace_id), "it is ended")
            await is_told_why(provider, workspace_id)
            await provider.destroy(place)


async def test_memory_that_was_used_up_while_the_engine_was_away(engine: Engine, directory: Path) -> None:
    """Of a workspace that is watched, and its watch is cut off."""
    workspace_id, service_id = new_id(), new_id()
    settings = DockerConfig.from_environment()
    path = directory / "engine.sock"
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(EngineProxy(engine, at=path))
        watching = DockerProvider(
            proxy.docker_host, service_id=service_id, default_image=settings.image, labels=settings.labels
        )
        stack.push_async_callback(watching.aclose)
        place = await watching.create(spec_of("gvisor", workspace_id, MEMORY))
        async with providing(directory, service_id) as unwatching:
            away = path.rename(directory / "away.sock")
            await proxy.reset()
            await use_up_memory(engine, unwatching, workspace_id)
            assert is_there(engine, workspace_id), "what is left of it hangs"
            away.rename(path)
            await eventually(lambda: not is_there(engine, workspace_id), "it is ended")
            await is_told_why(watching, workspace_id)
            await watching.destroy(place)


@pytest.mark.parametrize(
    ("by_engine", "why"), [(False, "killed, and not by the engine: out of memory, most"), (True, "its container is")]
)
async def test_sandbox_that_is_killed(engine: Engine, directory: Path, by_engine: bool, why: str) -> None:
    """By the kernel, which does not always tell the engine what for; or by somebody who uses the engine."""
    workspace_id, service_id = new_id(), new_id()
    async with providing(directory, service_id) as provider:
        place = await provider.create(spec_of("gvisor", workspace_id, MEMORY))
        container = f"/containers/agentic-{workspace_id}"
        if by_engine:
            engine.api.request("POST", f"{container}/kill")
        else:
            os.kill(engine.api.json("GET", f"{container}/json")["State"]["Pid"], signal.SIGKILL)
        await eventually(lambda: not is_there(engine, workspace_id), "it is ended")
        await is_told_why(provider, workspace_id, why)
        await provider.destroy(place)


async def test_sandbox_whose_guest_a_command_has_killed(engine: Engine, directory: Path) -> None:
    """For the engine it looks like one that was out of memory: the error names both."""
    workspace_id, service_id = new_id(), new_id()
    async with providing(directory, service_id) as provider:
        place = await provider.create(spec_of("gvisor", workspace_id, MEMORY))
        session = session_of(provider, place)
        await start(session, ["sh", "-c", "sleep 0.2; kill -KILL 1"])
        await eventually(lambda: not is_there(engine, workspace_id), "it is ended")
        await session.aclose()
        await is_told_why(provider, workspace_id, "a command in it that has killed process 1")
        await provider.destroy(place)
