"""The guest's volume is filled once, whoever begins, is killed meanwhile, or takes it away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from agentic_isolation import ResourceLimits, SecurityConfig, WorkspaceConfig
from agentic_isolation_service.core.ports import PlaceSpec
from agentic_isolation_service.guest.binary import guest_binary
from agentic_isolation_service.providers.docker import DockerProvider
from agentic_isolation_service.providers.docker import engine as connections
from agentic_isolation_service.providers.docker.empty_image import EMPTY_IMAGE
from agentic_isolation_service.providers.docker.guest_volume import ensure_guest_volume
from tests.engine import Engine
from tests.support.engine_leaks import WORKSPACES, emptied
from tests.support.impostor import impostor_image
from tests.support.own_engine import bring_up, own_engine
from tests.support.places import KEY, session_of
from tests.support.program import python_environment
from tests.turns import WAITS

pytestmark = [pytest.mark.docker, WAITS]
GUEST_VOLUME = "agentic-isolation=guest-volume"
PROGRAM = """
import asyncio
from agentic_isolation import AgenticWorkspace, SecurityConfig
async def main():
    async with AgenticWorkspace.create(security=SecurityConfig(use_gvisor=False), lease=60, target="") as ws:
        print((await ws.execute("echo works")).stdout, end="", flush=True)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def empty_engine() -> Iterator[Engine]:
    """An engine whose guest volumes nobody else uses."""
    with own_engine() as engine:
        yield engine


@pytest.fixture
def ground(warm: None, empty_engine: Engine) -> None:
    """The engine runs when accounts are taken, and has no guest's volume."""
    bring_up(empty_engine)
    forget(empty_engine)


@pytest.fixture(autouse=True)
async def nothing_left(empty_engine: Engine) -> AsyncIterator[None]:
    yield
    await emptied(empty_engine, WORKSPACES)
    assert not filling(empty_engine)


def filling(engine: Engine) -> list[str]:
    query = {"all": "1", "filters": json.dumps({"label": [GUEST_VOLUME]})}
    return [each["Id"] for each in engine.api.json("GET", "/containers/json", query=query)]


def guest_volumes(engine: Engine) -> list[str]:
    query = {"filters": json.dumps({"label": [GUEST_VOLUME]})}
    return sorted(each["Name"] for each in engine.api.json("GET", "/volumes", query=query)["Volumes"] or ())


def forget(engine: Engine) -> None:
    for container in filling(engine):
        engine.api.request("DELETE", f"/containers/{container}", query={"force": "1", "v": "1"})
    for volume in engine.api.json("GET", "/volumes")["Volumes"] or ():
        if volume["Name"].startswith("agentic-isolation-guest"):
            engine.api.request("DELETE", f"/volumes/{volume['Name']}")


@contextlib.asynccontextmanager
async def provider(engine: Engine) -> AsyncIterator[DockerProvider]:
    made = DockerProvider(engine.docker_host, service_id="test", default_image=engine.images.python)
    try:
        yield made
    finally:
        await made.aclose()


async def makes_a_workspace(
    made: DockerProvider, name: str, image: str | None = None, limits: ResourceLimits | None = None
) -> None:
    config = WorkspaceConfig(image=image, security=SecurityConfig(use_gvisor=False), limits=limits)
    place = await made.create(PlaceSpec(name, config, KEY))
    try:
        async with contextlib.aclosing(session_of(made, place)) as session:
            await session.call({"op": "info"})
    finally:
        await made.destroy(place)


async def fill(engine: Engine, *, stale_after: float) -> str:
    connection = connections.Engine(engine.docker_host)
    try:
        binary = guest_binary("linux", (await connection.facts()).architecture)
        async with connection.client() as client:
            return await ensure_guest_volume(client, binary, stale_after=stale_after)
    finally:
        await connection.aclose()


async def test_services_that_fill_it_at_the_same_time(empty_engine: Engine) -> None:
    environment = python_environment(DOCKER_HOST=empty_engine.docker_host)

    async def run() -> bytes:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, env=environment, cwd="/", stdout=subprocess.PIPE
        )
        output, _ = await program.communicate()
        return output

    assert await asyncio.gather(*(run() for _ in range(3))) == [b"works\n"] * 3
    assert len(guest_volumes(empty_engine)) == 2, "one, and the note that it is complete"


async def test_providers_of_one_process(empty_engine: Engine) -> None:
    async with provider(empty_engine) as one, provider(empty_engine) as other, asyncio.TaskGroup() as group:
        for number in range(2):
            group.create_task(makes_a_workspace(one, f"ws-one-{number}"))
            group.create_task(makes_a_workspace(other, f"ws-other-{number}"))


async def test_filling_that_was_given_up_is_taken_over(empty_engine: Engine) -> None:
    """Its container is the lock, and what it has put into the volume so far is not taken for the whole."""
    name = await fill(empty_engine, stale_after=60)
    forget(empty_engine)
    mount = {"Type": "volume", "Source": name, "Target": "/.agentic-isolation"}
    abandoned = {"Image": empty_engine.images.tiny, "Cmd": ["true"], "HostConfig": {"Mounts": [mount]}}
    empty_engine.api.json("POST", "/containers/create", content=abandoned, query={"name": f"{name}-fill"})
    filled = asyncio.create_task(fill(empty_engine, stale_after=2))
    _, waiting = await asyncio.wait([filled], timeout=0.5)
    assert waiting, "the other one has its time"
    assert await filled == name
    async with provider(empty_engine) as made:
        await makes_a_workspace(made, "ws-after")


async def test_cancelled_filling_gives_the_lock_back(empty_engine: Engine) -> None:
    for delay in (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2):
        filled = asyncio.create_task(fill(empty_engine, stale_after=60))
        await asyncio.wait([filled], timeout=delay)
        filled.cancel()
        await asyncio.gather(filled, return_exceptions=True)
        assert not filling(empty_engine)
    async with provider(empty_engine) as made:
        await makes_a_workspace(made, "ws-after")


@pytest.mark.parametrize("only_the_volume", [True, False])
async def test_volume_that_was_pruned(empty_engine: Engine, only_the_volume: bool) -> None:
    """By somebody who tidies the engine up, under a service that has seen it complete."""
    async with provider(empty_engine) as made:
        await makes_a_workspace(made, "ws-before")
        for name in guest_volumes(empty_engine):
            if not (only_the_volume and name.endswith("-complete")):
                empty_engine.api.request("DELETE", f"/volumes/{name}")
        await asyncio.sleep(1.1 if only_the_volume else 0)  # the engine tells times in seconds
        await makes_a_workspace(made, "ws-after")
        await makes_a_workspace(made, "ws-later")


async def test_network_that_was_pruned(empty_engine: Engine) -> None:
    """It is made again, be it a moment after its firewall was put up."""
    network = ResourceLimits(network=True)
    async with provider(empty_engine) as made:
        await makes_a_workspace(made, "ws-before", limits=network)
        empty_engine.api.request("POST", "/networks/prune")
        await makes_a_workspace(made, "ws-after", limits=network)


async def test_volume_whose_guest_has_gone(empty_engine: Engine) -> None:
    """By a loss of power, for example: it is put there again, whatever says that the volume is complete."""
    async with provider(empty_engine) as made:
        await makes_a_workspace(made, "ws-before")
        [name] = [volume for volume in guest_volumes(empty_engine) if not volume.endswith("-complete")]
        mount = {"Type": "volume", "Source": name, "Target": "/guest"}
        vandal = {
            "Image": empty_engine.images.python,
            "Cmd": ["rm", "/guest/agentic-guest"],
            "HostConfig": {"Mounts": [mount]},
        }
        container = empty_engine.api.json("POST", "/containers/create", content=vandal)["Id"]
        empty_engine.api.request("POST", f"/containers/{container}/start")
        empty_engine.api.request("POST", f"/containers/{container}/wait")
        empty_engine.api.request("DELETE", f"/containers/{container}")
        await makes_a_workspace(made, "ws-after")
    async with provider(empty_engine) as another:
        await makes_a_workspace(another, "ws-of-another")


async def test_image_that_pretends_to_be_the_volume(empty_engine: Engine) -> None:
    """The first workspace of an engine spoils nobody's guest."""
    with impostor_image(empty_engine) as image:
        async with provider(empty_engine) as made:
            await makes_a_workspace(made, "ws-impostor", image)
    async with provider(empty_engine) as another:
        await makes_a_workspace(another, "ws-after")


async def test_image_that_pretends_to_be_the_empty_one(empty_engine: Engine) -> None:
    """Anybody who may pull an image may give it any name."""
    name, _, tag = EMPTY_IMAGE.rpartition(":")
    with impostor_image(empty_engine) as image:
        empty_engine.api.request("POST", f"/images/{image}/tag", query={"repo": name, "tag": tag})
        async with provider(empty_engine) as made:
            await makes_a_workspace(made, "ws-one")
    assert not empty_engine.api.json("GET", f"/images/{EMPTY_IMAGE}/json")["Config"]["Volumes"]
