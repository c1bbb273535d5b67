"""Creations that are cancelled, refused or killed at any moment leave nothing in the engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest

from agentic_isolation import (
    AgenticWorkspace,
    InvalidArgumentError,
    IsolationUnavailableError,
    ResourceLimits,
    SecurityConfig,
    WorkspaceConfig,
    WorkspaceDockerProvider,
)
from agentic_isolation_service.core.ports import PlaceSpec
from agentic_isolation_service.providers.docker import DockerProvider
from agentic_isolation_service.providers.docker.creation import Sweeper
from agentic_isolation_service.providers.docker.engine import Engine as Connection
from tests.engine import Engine
from tests.engine.plugin import RUN_LABEL
from tests.support.engine_leaks import containers, emptied, volumes
from tests.support.service import ServedProcess

pytestmark = pytest.mark.docker
RUNC = SecurityConfig(use_gvisor=False)
GVISOR = SecurityConfig(use_gvisor=True)
AT_A_TIME = 4
LONGEST = 0.6
"""Seconds after which most creations are done."""


@pytest.mark.parametrize(
    ("security", "step"),
    [
        pytest.param(RUNC, 0.01, id="runc"),
        pytest.param(GVISOR, 0.04, id="runsc", marks=pytest.mark.gvisor),
    ],
)
async def test_creation_that_is_cancelled_at_any_moment(engine: Engine, security: SecurityConfig, step: float) -> None:
    """From before the engine has heard of it until it is done, by steps."""
    provider = WorkspaceDockerProvider()
    config = WorkspaceConfig(security=security, lease=60)
    room = asyncio.Semaphore(AT_A_TIME)

    async def cancelled_after(delay: float) -> bool:
        async with room:
            creating = asyncio.create_task(provider.create(config))
            await asyncio.wait([creating], timeout=delay)
            creating.cancel()
            await asyncio.wait([creating])
            if creating.cancelled():
                return True
            await provider.destroy(creating.result())
            return False

    base = await provider.create(config)  # what comes first only once is done
    try:
        outcomes = await asyncio.gather(*(cancelled_after(step * number) for number in range(round(LONGEST / step))))
        assert outcomes[0], "one was cancelled before it began"
        remaining = [f"{name}: {each['State']}" for each in containers(engine) for name in each["Names"]]
        assert remaining == [f"/agentic-{base.id}: running"], "what was cancelled is gone when that is told"
    finally:
        await provider.destroy(base)


async def test_creation_that_is_cancelled_again_and_again(engine: Engine) -> None:
    """The clean-up goes on, if need be without those who have asked for it."""
    provider = WorkspaceDockerProvider()
    for delay in (0.02, 0.05, 0.1, 0.2):
        creating = asyncio.create_task(provider.create(WorkspaceConfig(security=RUNC, lease=60)))
        await asyncio.sleep(delay)
        while not creating.done():
            creating.cancel()
            await asyncio.sleep(0)
        if not creating.cancelled():
            await provider.destroy(creating.result())
        await emptied(engine)


@pytest.mark.parametrize(
    "security",
    [
        pytest.param(RUNC, id="runc"),
        pytest.param(SecurityConfig(use_gvisor=True), id="runsc", marks=pytest.mark.gvisor),
    ],
)
async def test_workspace_ends_by_itself(engine: Engine, security: SecurityConfig) -> None:
    """A kill from outside can keep an engine busy with itself for a minute, where many processes run under gVisor."""
    async with AgenticWorkspace.create(security=security) as workspace:
        await workspace.execute("for each in $(seq 16); do sleep 1000 & done; true")
        [container] = containers(engine, f"agentic-isolation.workspace-id={workspace.id}")
        before = int(time.time())
    query = {
        "since": str(before),
        "until": str(int(time.time()) + 1),
        "filters": json.dumps({"container": [container["Id"]]}),
    }
    told = [json.loads(line)["Action"] for line in engine.api.request("GET", "/events", query=query).splitlines()]
    assert "destroy" in told
    assert "kill" not in told


async def test_limit_that_the_engine_refuses(service: ServedProcess) -> None:
    limits = ResourceLimits(cpu=4000)
    with pytest.raises(IsolationUnavailableError, match="CPU") as caught:
        await AgenticWorkspace.create(security=RUNC, limits=limits, lease=60, target=service.target)
    assert caught.value.field == "limits.cpu_millis"


async def test_limit_that_the_kernel_refuses(service: ServedProcess) -> None:
    """As the engine finds when it starts the container: 2^31 is more than any kernel has files for."""
    limits = ResourceLimits(open_files=1 << 31)
    with pytest.raises(IsolationUnavailableError, match="engine's host") as caught:
        await AgenticWorkspace.create(security=RUNC, limits=limits, lease=60, target=service.target)
    assert caught.value.field == "limits.open_files_count"


@pytest.mark.parametrize("security", [RUNC, pytest.param(GVISOR, marks=pytest.mark.gvisor)], ids=["runc", "gvisor"])
@pytest.mark.parametrize("working_dir", ["/usr/bin/env", "/etc/passwd/below"])
async def test_container_that_cannot_start(service: ServedProcess, security: SecurityConfig, working_dir: str) -> None:
    """It was created, and then its runtime finds that a file is in the way of the working directory."""
    with pytest.raises(InvalidArgumentError, match="on a file of the image") as caught:
        await AgenticWorkspace.create(security=security, working_dir=working_dir, lease=60, target=service.target)
    assert caught.value.field == "working_dir"
    assert "/overlay2/" not in str(caught.value), "it tells of the host"


@pytest.mark.parametrize(
    ("security", "working_dir"),
    [
        pytest.param(RUNC, "/" + 256 * "a", id="name-runc"),
        pytest.param(GVISOR, "/" + 256 * "a", id="name-gvisor", marks=pytest.mark.gvisor),
        pytest.param(RUNC, 20 * ("/" + 199 * "a"), id="path-runc"),
    ],
)
async def test_working_directory_that_is_too_long(
    service: ServedProcess, security: SecurityConfig, working_dir: str
) -> None:
    """For the engine, whose own path of the container's root comes before it: no repeat would help."""
    with pytest.raises(InvalidArgumentError, match="too long") as caught:
        await AgenticWorkspace.create(security=security, working_dir=working_dir, lease=60, target=service.target)
    assert caught.value.field == "working_dir"
    assert "/overlay2/" not in str(caught.value), "it tells of the host"


@pytest.mark.parametrize("look", [False, True], ids=["by-creation", "by-look"])
async def test_container_that_was_never_started_is_swept(engine: Engine, look: bool) -> None:
    """What a service leaves that is killed between creating and starting: the next one finds it, and only it.

    It does so when it makes a workspace, and when it looks for its own, as it does every minute.
    """
    name, _, value = RUN_LABEL.partition("=")
    sweeping = DockerProvider(
        service_id="test", default_image=engine.images.python, labels={name: value}, stale_after=0
    )
    ids = [abandoned(engine, "workspace"), abandoned(engine, "other")]
    try:
        config = WorkspaceConfig(security=RUNC, lease=60)
        await asyncio.sleep(1.1)  # the engine tells ages in seconds
        place = None if look else await sweeping.create(PlaceSpec("ws-sweeping", config, bytes(32)))
        if look:
            assert await sweeping.list() == frozenset()
        assert {each["Id"] for each in containers(engine) if each["State"] == "created"} == {ids[1]}
        if place is not None:
            await sweeping.destroy(place)
    finally:
        await sweeping.aclose()
        for each in ids:
            with contextlib.suppress(Exception):
                engine.api.request("DELETE", f"/containers/{each}", query={"force": "1", "v": "1"})
    await emptied(engine)


async def test_sweeping_holds_nobody_up_for_long(engine: Engine) -> None:
    """Who makes a workspace does not wait until a thousand are removed: the rest is left to the next look."""
    name, _, value = RUN_LABEL.partition("=")
    for _ in range(2):
        abandoned(engine, "workspace")
        engine.api.request(
            "POST", "/volumes/create", content={"Labels": {"agentic-isolation": "workspace", name: value}}
        )
    connection = Connection(engine.docker_host)
    try:
        async with connection.client() as client:
            for left in (1, 0):
                labels = {"agentic-isolation": "workspace", name: value}
                await Sweeper(labels, stale_after=-2, patience=0).sweep(client)
                assert len(containers(engine)) == left
                assert len(volumes(engine)) == 2 * left, "those of containers, and those without"
    finally:
        await connection.aclose()


def abandoned(engine: Engine, what: str) -> str:
    """Creates a container with a volume, as a service does that is killed before it starts it, and returns its id."""
    name, _, value = RUN_LABEL.partition("=")
    labels = {"agentic-isolation": what, name: value}
    volume = {"Type": "volume", "Target": "/workspace", "VolumeOptions": {"Labels": labels}}
    config = {"Image": engine.images.tiny, "Cmd": ["true"], "Labels": labels, "HostConfig": {"Mounts": [volume]}}
    return str(engine.api.json("POST", "/containers/create", content=config)["Id"])
