"""Workspaces out of a pool are as new, as isolated and as leased as others; what waits in it is nobody's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import grpc
import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.engine import Engine
from tests.integration.lasting import KINDS, create, destroy, listed, output
from tests.integration.pooling import PoolingService, filled, pool_of, pooling
from tests.integration.wire import Stub, call, refused, seconds, shell
from tests.support.engine_leaks import container_of
from tests.support.engine_proxy import EngineProxy
from tests.support.eventually import eventually
from tests.support.jobs import new_mark
from tests.support.proc import belonging_to

kinds = pytest.mark.parametrize("kind", KINDS)
local_and_runc = pytest.mark.parametrize("kind", KINDS[:2])


@pytest.fixture
def ground(warm: None) -> None:
    """Nothing is asked of the shared service here."""


@contextlib.asynccontextmanager
async def serving(service: PoolingService) -> AsyncIterator[Stub]:
    async with pooling(service), service.running() as stub:
        yield stub


async def made(stub: Stub, request: pb.CreateWorkspaceRequest) -> pb.Workspace:
    return (await stub.CreateWorkspace(request)).workspace


def _is_gone(place: Path) -> bool:
    return not place.exists()


@kinds
async def test_claimed_workspace_is_new_and_as_asked(kind: str, directory: Path) -> None:
    service = PoolingService(kind, directory, most=2)
    async with serving(service) as stub:
        pool = await filled(stub)
        assert (pool.hits_count, pool.misses_count, pool.last_error) == (0, 0, "")
        [waiting] = service.pooled()

        # Nobody finds it before somebody has asked for one.
        assert not await listed(stub)
        for hidden in (
            pb.GetWorkspaceRequest(workspace_id=waiting),
            pb.RenewWorkspaceRequest(workspace_id=waiting),
            pb.DestroyWorkspaceRequest(workspace_id=waiting),
            pb.ExecuteRequest(workspace_id=waiting, command=shell("true")),
        ):
            with refused(grpc.StatusCode.NOT_FOUND, "WORKSPACE_NOT_FOUND"):
                await call(stub, hidden)

        asked = time.time()
        request = create(
            kind,
            environment={"COLOUR": "green"},
            secrets={"KEY": "hidden"},
            labels={"project": "a"},
            lease_duration=seconds(77),
            request_id=new_mark(),
        )
        one = await made(stub, request)
        assert one.workspace_id == waiting
        assert dict(one.labels) == {"project": "a"}
        assert one.state == pb.WORKSPACE_STATE_READY
        assert asked - 1 <= one.create_time.ToMilliseconds() / 1000 <= time.time() + 1
        assert 70 <= one.lease_expire_time.ToSeconds() - asked <= 80
        assert one.isolation.runtime == {"local": "local", "runc": "runc", "gvisor": "runsc"}[kind]
        assert await output(stub, one, "ls -A; echo $COLOUR $KEY; touch mine") == b"green hidden\n"
        assert await made(stub, request) == one
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "request_id"):
            await made(stub, create(kind, request_id=request.request_id))

        await filled(stub)
        two = await made(stub, create(kind))
        assert two.workspace_id != one.workspace_id
        assert await output(stub, two, "ls -A; echo $COLOUR$KEY") == b"\n"
        assert set(await listed(stub)) == {one.workspace_id, two.workspace_id}
        assert (await pool_of(stub)).hits_count == 2
        # What asks for something else is made as if there were no pool.
        elsewhere = await made(stub, create(kind, working_dir="/elsewhere"))
        assert elsewhere.working_dir == "/elsewhere"
        pool = await pool_of(stub)
        assert (pool.hits_count, pool.misses_count) == (2, 0)


async def test_ends_of_the_claim_hold(directory: Path) -> None:
    """They are counted from the claim on, whatever the place has lived before."""
    async with serving(PoolingService("local", directory)) as stub:
        for ends in ({"lease_duration": seconds(1)}, {"idle_timeout": seconds(1)}, {"max_lifetime": seconds(1)}):
            await filled(stub)
            workspace = await made(stub, create("local", **ends))

            place = Path(workspace.host_path)
            await eventually(partial(_is_gone, place), f"{ends} holds")
        assert (await pool_of(stub)).hits_count == 3


@pytest.mark.parametrize(("kind", "count"), [("local", 20), pytest.param("runc", 8, marks=pytest.mark.docker)])
async def test_more_at_once_than_are_ready(kind: str, count: int, directory: Path) -> None:
    async with serving(PoolingService(kind, directory, least=4, most=4)) as stub:
        await filled(stub)
        workspaces = await asyncio.gather(*(made(stub, create(kind)) for _ in range(count)))
        assert len({workspace.workspace_id for workspace in workspaces}) == count
        await asyncio.gather(*(output(stub, workspace, "touch mine") for workspace in workspaces))
        found = await asyncio.gather(*(output(stub, workspace, "ls -A") for workspace in workspaces))
        assert found == [b"mine\n"] * count
        pool = await pool_of(stub)
        assert (pool.hits_count + pool.misses_count, pool.hits_count >= 4) == (count, True)


@local_and_runc
async def test_dead_place_is_replaced(kind: str, directory: Path, request: pytest.FixtureRequest) -> None:
    service = PoolingService(kind, directory)
    async with serving(service) as stub:
        await filled(stub)
        [dead] = service.pooled()
        if kind == "local":
            [guest] = [entry for entry in belonging_to(service.state / "w") if "serve" in entry.arguments]
            os.kill(guest.pid, signal.SIGKILL)
        else:
            engine: Engine = request.getfixturevalue("engine")
            engine.api.request("POST", f"/containers/{container_of(engine, dead)}/kill")
        await eventually(lambda: dead not in service.pooled(), "the dead place is forgotten")
        await filled(stub)
        workspace = await made(stub, create(kind))
        assert workspace.workspace_id != dead
        assert await output(stub, workspace, "echo here") == b"here\n"


@pytest.mark.docker
async def test_pool_that_cannot_be_refilled(directory: Path) -> None:
    """It says so once for each reason, and is in nobody's way."""
    service = PoolingService("runc", directory, "--log-level", "warning", more='image = "no-such-image:1"')
    async with pooling(service):
        async with service.running() as stub:

            async def has_failed() -> bool:
                return "no-such-image" in (await pool_of(stub)).last_error

            await eventually(has_failed, "the pool says that it is not filled")
            for kind in ("local", "runc"):
                workspace = await made(stub, create(kind))
                assert await output(stub, workspace, "echo here") == b"here\n"
                await destroy(stub, workspace.workspace_id)
            await asyncio.sleep(1.2)  # for the second attempt
        log = await service.end(signal.SIGTERM)
        assert log.count("cannot be refilled") == 1


@contextlib.contextmanager
def image_of_ours(engine: Engine) -> Iterator[Callable[[str], str]]:
    """Yields what gives a name of this test's own to an image, taking it away from the one before."""
    repository, tag = "agentic-isolation-test/moving", new_mark().lower()

    def move_to(image: str) -> str:
        engine.api.request("POST", f"/images/{image}/tag", query={"repo": repository, "tag": tag})
        return f"{repository}:{tag}"

    name = move_to(engine.images.python)
    try:
        yield move_to
    finally:
        engine.api.request("DELETE", f"/images/{name}")


@pytest.mark.docker
async def test_image_that_moves(engine: Engine, directory: Path) -> None:
    """Places of what its name stood for before go, as soon as another one is made."""
    with image_of_ours(engine) as move_to:
        image = move_to(engine.images.python)
        service = PoolingService("runc", directory, least=2, most=2, more=f'image = "{image}"')
        async with serving(service) as stub:
            await filled(stub)
            old = service.pooled()
            move_to(engine.images.tiny)
            await made(stub, create("runc", image=image))  # so that another one is made
            await eventually(lambda: not old & service.pooled(), "no place of the old image waits")
            await filled(stub)
            workspace = await made(stub, create("runc", image=image))
            with refused(grpc.StatusCode.NOT_FOUND, "PROGRAM_NOT_FOUND"):
                await output(stub, workspace, "this image has no shell")
            assert (await pool_of(stub)).hits_count == 2


@pytest.mark.docker
async def test_engine_that_goes(engine: Engine, directory: Path) -> None:
    """What is ready is had without it, the pool says why it is not refilled, and is when the engine is back."""
    way = EngineProxy(engine, at=directory / "engine.sock")
    async with way:
        service = PoolingService("runc", directory, "--docker-host", way.docker_host, least=2, most=2)
        async with serving(service) as stub:
            await filled(stub)
            ready = service.pooled()
            await way.refuse()
            workspace = await made(stub, create("runc"))
            assert workspace.workspace_id in ready
            assert await output(stub, workspace, "echo here") == b"here\n"

            async def tells() -> bool:
                return way.docker_host in (await pool_of(stub)).last_error

            await eventually(tells, "the pool tells that the engine is away")
            await way.accept()
            pool = await filled(stub)
            assert (pool.ready_count, pool.last_error) == (2, "")


@local_and_runc
async def test_places_outlive_their_service(kind: str, directory: Path) -> None:
    """The next process takes them up, and one that has no such pool removes them."""
    service = PoolingService(kind, directory, least=2, most=2)
    async with pooling(service):
        async with service.running() as stub:
            await filled(stub)
            before = service.pooled()
        await service.end(signal.SIGKILL)
        async with service.running() as stub:
            await filled(stub)
            assert service.pooled() == before
            workspace = await made(stub, create(kind))
            assert workspace.workspace_id in before
            assert await output(stub, workspace, "echo here") == b"here\n"
        await service.end(signal.SIGKILL)
        service.configure(pools=False)
        async with service.running() as stub:
            assert set(await listed(stub)) == {workspace.workspace_id}
            await eventually(lambda: not service.pooled(), "nothing waits without a pool")
            assert await output(stub, workspace, "echo here") == b"here\n"


async def test_lost_registry(directory: Path) -> None:
    """Places of which only their guests say that nobody had them are not given to anybody."""
    service = PoolingService("local", directory)
    async with pooling(service):
        async with service.running() as stub:
            await filled(stub)
            workspace = await made(stub, create("local"))
            await filled(stub)
            before = service.pooled()
        await service.end(signal.SIGKILL)
        for path in service.state.glob("registry.db*"):
            path.unlink()
        async with service.running() as stub:
            await filled(stub)
            await eventually(lambda: not service.pooled() & before, "they are removed")
            assert set(await listed(stub)) == {workspace.workspace_id}


async def test_places_count_for_refilling_only(directory: Path) -> None:
    """A service that is full for its pools is not full for those who ask."""
    service = PoolingService("local", directory, "--max-workspaces", "2", least=2, most=2)
    async with serving(service) as stub:
        await filled(stub)
        one = await made(stub, create("local", working_dir="/elsewhere"))
        two = await made(stub, create("local"))
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "CAPACITY"):
            await made(stub, create("local"))
        await eventually(lambda: not service.pooled(), "there is no room for places that nobody has asked for")
        assert set(await listed(stub)) == {one.workspace_id, two.workspace_id}
        await destroy(stub, one.workspace_id)

        async def is_refilled() -> bool:
            return (await pool_of(stub)).ready_count == 1

        await eventually(is_refilled, "there is room again", within=20)


async def test_template_that_no_provider_can_make(directory: Path) -> None:
    service = PoolingService("local", directory, more='image = "python:3.12-slim"')
    assert "pool[0].image: the local provider has no images" in await service.refused()
