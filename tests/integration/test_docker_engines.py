"""The Docker Engine is not there, ends, stops, is cut off or fails: what its users are told, and what goes on."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from agentic_isolation import (
    AgenticWorkspace,
    ProviderUnavailableError,
    SecurityConfig,
    UnavailableError,
    WorkspaceLostError,
)
from agentic_isolation.models import WorkspaceState
from agentic_isolation.service import ServiceClient
from agentic_isolation.v1 import workspace_pb2 as pb
from tests.engine import Engine
from tests.integration.lasting import create, destroy, lasting, listed
from tests.integration.wire import EventReader, Stub, call, connected, resume, seconds, shell, start
from tests.support.engine_leaks import WORKSPACES, containers, emptied, sweep
from tests.support.engine_proxy import EngineProxy
from tests.support.eventually import eventually
from tests.support.jobs import new_mark, running, sleep_for_ever
from tests.support.own_engine import bring_up, own_engine
from tests.support.service import ServedProcess
from tests.turns import WAITS

pytestmark = [pytest.mark.docker, WAITS]
RUNC = SecurityConfig(use_gvisor=False)
SOON = 5.0
END = 12.0
"""Seconds within which a service has ended that has no grace to give: 10 are promised, and slow machines are fine."""
BOUND = 60.0
"""Seconds within which a call ends whose engine has stopped; it takes some 35."""


@pytest.fixture(scope="module")
def fragile() -> Iterator[Engine]:
    """An engine that nobody else uses, to be broken."""
    with own_engine() as engine:
        yield engine


@pytest.fixture
def ground(warm: None, fragile: Engine) -> None:
    """The engine runs when accounts are taken."""
    bring_up(fragile)


@pytest.fixture
async def served(fragile: Engine, directory: Path) -> AsyncIterator[ServedProcess]:
    """A service that uses the engine, for bridges too. Nothing of it is left there."""
    environment = {"DOCKER_HOST": fragile.docker_host}
    with ServedProcess("--address", f"unix:{directory}/s", environment=environment, enters=False) as service:
        yield service
        await restarted(fragile)
    # A 20.10 forgets volumes of the containers that it ends with itself, or finds when it starts again.
    await sweep(fragile)
    await emptied(fragile, WORKSPACES)


async def restarted(engine: Engine) -> None:
    await asyncio.to_thread(bring_up, engine)


def unreachable(engine: Engine) -> pytest.RaisesExc[ProviderUnavailableError]:
    """Expects an error that names what was tried."""
    return pytest.raises(ProviderUnavailableError, match=engine.docker_host)


@pytest.mark.parametrize("end", [Engine.stop, Engine.kill])
async def test_engine_that_ends(fragile: Engine, served: ServedProcess, end: Callable[[Engine], None]) -> None:
    """While it is away nothing is lost yet. An engine without live restore ends its containers, and that is told."""
    async with (
        ServiceClient(served.target) as client,
        AgenticWorkspace.create(security=RUNC, lease=60, target=served.target, retry_timeout=0) as ws,
    ):
        mark = new_mark()
        command = asyncio.create_task(ws.execute(sleep_for_ever(mark)))
        await running(ws, mark)
        await asyncio.to_thread(end, fragile)
        began = time.monotonic()
        with pytest.raises((ProviderUnavailableError, WorkspaceLostError)):
            await command
        if end is Engine.kill:
            with unreachable(fragile):
                await ws.execute("true")
        with unreachable(fragile):
            await AgenticWorkspace.create(security=RUNC, lease=60, target=served.target)
        assert time.monotonic() - began < SOON
        await restarted(fragile)

        async def lost() -> bool:
            return [each.state async for each in client.list_workspaces()] == [WorkspaceState.LOST]

        await eventually(lost, "the workspace is listed as lost")
        with pytest.raises(WorkspaceLostError):
            await ws.execute("true")
        async with AgenticWorkspace.create(security=RUNC, lease=60, target=served.target) as another:
            assert (await another.execute("echo as before")).stdout == "as before\n"


async def test_workspaces_that_could_not_be_removed_are_later(fragile: Engine, served: ServedProcess) -> None:
    """One that is destroyed while the engine is away, and one whose lease ends meanwhile."""
    async with ServiceClient(served.target, retry_timeout=0) as client, connected(served.target) as stub:
        ids = []
        for lease in (60, 3):
            security = pb.SecurityConfig(use_gvisor=False)
            request = pb.CreateWorkspaceRequest(provider="docker", lease_duration=seconds(lease), security=security)
            ids.append((await stub.CreateWorkspace(request)).workspace.workspace_id)
        await asyncio.to_thread(fragile.kill)
        with unreachable(fragile):
            await client.destroy_workspace(ids[0])

        async def states() -> set[WorkspaceState]:
            return {each.state async for each in client.list_workspaces()}

        async def all_are_ending() -> bool:
            return await states() == {WorkspaceState.DESTROYING}

        # Its guest is asked for a while whether that is so.
        await eventually(all_are_ending, "the lease has ended as well", within=60)
        await restarted(fragile)

        async def forgotten() -> bool:
            return not await states()

        await eventually(forgotten, "both are removed")
        assert not containers(fragile, WORKSPACES)


async def test_engine_that_stops_answering(fragile: Engine, served: ServedProcess) -> None:
    """Every call ends in time with what was tried; afterwards the workspace is as before, and so is what lingers."""
    async with (
        connected(served.target) as stub,
        AgenticWorkspace.create(security=RUNC, lease=300, target=served.target, retry_timeout=0) as ws,
    ):
        workspace = pb.Workspace(workspace_id=ws.id)
        request = start(workspace, shell("echo first; sleep 20; echo last"), linger=seconds(120))
        async with EventReader(stub, request) as events:
            await events.until("output")
            with fragile.paused():
                began = time.monotonic()
                outcomes = await asyncio.gather(
                    ws.execute("true"),
                    ws.execute("true"),
                    ws.read_file("file"),
                    AgenticWorkspace.create(security=RUNC, lease=60, target=served.target, retry_timeout=0),
                    return_exceptions=True,
                )
                assert time.monotonic() - began < BOUND
        for outcome in outcomes:
            assert isinstance(outcome, UnavailableError), outcomes
            assert fragile.docker_host in str(outcome)
        assert (await ws.execute("echo as before")).stdout == "as before\n"
        async with EventReader(stub, resume(workspace, events.process_id)) as resumed:
            await resumed.to_end()
            assert resumed.text() == b"first\nlast\n"


async def test_guests_that_are_connected_to_directly(fragile: Engine, directory: Path) -> None:
    """Their workspaces need no engine: while it is stopped or gone commands run, and what it ends is told as lost."""
    environment = {"DOCKER_HOST": fragile.docker_host}
    with ServedProcess("--address", f"unix:{directory}/s", environment=environment) as service:
        async with AgenticWorkspace.create(security=RUNC, lease=60, target=service.target, retry_timeout=0) as ws:
            with fragile.paused():
                assert (await ws.execute("echo while it is stopped")).success
            await asyncio.to_thread(fragile.kill)
            assert (await ws.execute("echo while it is gone")).success
            await restarted(fragile)  # without live restore it ends the container
            with pytest.raises(WorkspaceLostError):
                await ws.execute("true")
    await sweep(fragile)
    await emptied(fragile, WORKSPACES)


async def test_connections_that_are_cut(fragile: Engine, directory: Path) -> None:
    """As an engine does that restarts and keeps its containers: a bridge is made anew, and what lingers goes on."""
    async with EngineProxy(fragile, at=directory / "engine.sock") as proxy:
        environment = {"DOCKER_HOST": proxy.docker_host}
        with ServedProcess("--address", f"unix:{directory}/s", environment=environment, enters=False) as service:
            async with (
                connected(service.target) as stub,
                AgenticWorkspace.create(security=RUNC, lease=60, target=service.target, retry_timeout=0) as ws,
            ):
                workspace = pb.Workspace(workspace_id=ws.id)
                line = "echo first; until [ -e go ]; do sleep 0.05; done; echo last"
                async with EventReader(stub, start(workspace, shell(line), linger=seconds(60))) as events:
                    await events.until("output")
                    lingering = asyncio.create_task(call(stub, _execute(ws.id, line, "request-1", linger=60)))
                    mark = new_mark()
                    hurried = asyncio.create_task(ws.execute(sleep_for_ever(mark)))
                    await running(ws, mark)
                    await proxy.reset()
                with pytest.raises(UnavailableError, match="ended"):
                    await hurried
                await asyncio.gather(lingering, return_exceptions=True)
                await ws.write_file("go", "")
                async with EventReader(stub, resume(workspace, events.process_id)) as resumed:
                    await resumed.to_end()
                    assert resumed.text() == b"first\nlast\n"
                (again,) = await call(stub, _execute(ws.id, line, "request-1", linger=60))
                assert again.stdout.head == b"first\nlast\n"
    await emptied(fragile, WORKSPACES)


async def test_service_that_is_told_to_end_while_the_engine_does_not_answer(fragile: Engine, directory: Path) -> None:
    """It waits no longer than whoever has told it; what it was removing the next one removes."""
    async with (
        EngineProxy(fragile, at=directory / "engine.sock") as proxy,
        lasting(directory, "--docker-host", proxy.docker_host, "--grace", "0.2") as mine,
    ):
        async with mine.running() as stub:
            workspace = (await stub.CreateWorkspace(create("runc"))).workspace
            proxy.hold()
            asked = proxy.connection_count
            destroying = asyncio.ensure_future(destroy(stub, workspace.workspace_id))
            await eventually(lambda: proxy.connection_count > asked, "the engine is asked")
            began = time.monotonic()
            log = await mine.end(signal.SIGTERM)
            assert time.monotonic() - began < END
            assert "left to the next service" in log
            await asyncio.gather(destroying, return_exceptions=True)
        await proxy.reset()
        proxy.release()
        async with mine.running() as stub:
            await eventually(lambda: _has_none(stub), "the workspace is removed")
    await emptied(fragile, WORKSPACES)


async def _has_none(stub: Stub) -> bool:
    return not await listed(stub)


def _execute(workspace_id: str, line: str, request_id: str, linger: float) -> pb.ExecuteRequest:
    return pb.ExecuteRequest(
        workspace_id=workspace_id, command=shell(line), request_id=request_id, linger=seconds(linger)
    )
