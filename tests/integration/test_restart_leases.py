"""What ends a workspace ends it whether or not its service is there, and a new service does not prolong it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.engine import Engine
from tests.integration.lasting import (
    KINDS,
    LastingService,
    create,
    destroy,
    execute,
    lasting,
    listed,
    output,
    place_is_left,
)
from tests.integration.wire import Stub, refused, seconds
from tests.support.engine_leaks import container_of, containers
from tests.support.eventually import eventually
from tests.support.failpoints import Failpoint, Orders
from tests.support.jobs import new_mark
from tests.support.proc import belonging_to
from tests.turns import WAITS

pytestmark = WAITS
kinds = pytest.mark.parametrize("kind", KINDS)
NOT_FOUND = grpc.StatusCode.NOT_FOUND
LEASE = 3.0
SHORT = {
    "lease": {"lease_duration": seconds(1.5)},
    "idle": {"idle_timeout": seconds(1.5)},
    "lifetime": {"max_lifetime": seconds(1.5)},
}
"""What ends a workspace soon."""


@pytest.fixture
def ground(warm: None) -> None:
    """Nothing is asked of the shared service here."""


@pytest.fixture
def engine_of(request: pytest.FixtureRequest, kind: str) -> Engine | None:
    """The engine, for kinds that need one."""
    return None if kind == "local" else request.getfixturevalue("engine")


@pytest.fixture
async def mine(directory: Path) -> AsyncIterator[LastingService]:
    """The service that is ended and started again."""
    async with lasting(directory, "--grace", "0.2") as mine:
        yield mine


@kinds
@pytest.mark.parametrize("why", SHORT)
async def test_workspace_ends_while_no_service_is_there(
    mine: LastingService, directory: Path, kind: str, why: str, engine_of: Engine | None
) -> None:
    """Place and all, and the next service knows."""
    wanted = create(kind, request_id=new_mark(), **SHORT[why])
    async with mine.running() as stub:
        workspace = (await stub.CreateWorkspace(wanted)).workspace
    await mine.end(signal.SIGKILL)
    await eventually(lambda: not place_is_left(directory, workspace, engine_of), "the place is gone")
    async with mine.running() as stub:
        await _is_gone(stub, workspace)
        with refused(NOT_FOUND, "WORKSPACE_NOT_FOUND"):
            await stub.CreateWorkspace(wanted)


@kinds
@pytest.mark.parametrize("why", ["lease", "idle"])
async def test_workspace_that_was_being_made_ends_while_no_service_is_there(
    directory: Path, kind: str, why: str, engine_of: Engine | None
) -> None:
    """Its times have not begun, but they are what it lasts, or some seconds more."""
    async with lasting(directory, "--log-level", "error", failing=True) as mine:
        Orders(directory).give(Failpoint("call.claim", 1, "before"))
        async with mine.running() as stub:
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.CreateWorkspace(create(kind, **SHORT[why]))
        assert await mine.ended() == (-signal.SIGKILL, "")
        identity = json.loads((mine.state / "identity").read_text())["service_id"]

        def places() -> list[object]:
            if engine_of is None:
                return list((mine.state / "w").iterdir())
            return [*containers(engine_of, f"agentic-isolation.service={identity}")]

        assert places()
        await eventually(lambda: not places(), "the place is gone")


@kinds
@pytest.mark.parametrize("why", SHORT)
async def test_workspace_ends_under_the_next_service(
    mine: LastingService, directory: Path, kind: str, why: str, engine_of: Engine | None
) -> None:
    """The next service neither prolongs it nor lists it when it has ended."""
    async with mine.running() as stub:
        workspace = (await stub.CreateWorkspace(create(kind, **SHORT[why]))).workspace
    await mine.end(signal.SIGKILL)
    async with mine.running() as stub:
        await _is_gone(stub, workspace)
        await eventually(lambda: not place_is_left(directory, workspace, engine_of), "the place is gone")


async def test_renewed_lease_is_the_one_that_counts_after_a_restart(mine: LastingService) -> None:
    """The renewal was made through the first service, and the second one neither forgets nor repeats it."""
    async with mine.running() as stub:
        workspace = (await stub.CreateWorkspace(create("local", lease_duration=seconds(1.5)))).workspace
        renewal = pb.RenewWorkspaceRequest(workspace_id=workspace.workspace_id, lease_duration=seconds(60))
        until = (await stub.RenewWorkspace(renewal)).lease_expire_time
    await mine.end(signal.SIGKILL)
    async with mine.running() as stub:
        found = (await listed(stub))[workspace.workspace_id]
        assert abs(found.lease_expire_time.ToDatetime() - until.ToDatetime()).total_seconds() < 0.01
        renewal.lease_duration.CopyFrom(seconds(1))
        await stub.RenewWorkspace(renewal)
        await _is_gone(stub, workspace)


async def test_lease_that_was_over_long_ago_by_what_is_written_down(mine: LastingService) -> None:
    """Because the clock was set forward, or a renewal could not be written: the guest is asked all the same."""
    async with mine.running() as stub:
        workspace = (await stub.CreateWorkspace(create("local"))).workspace
        await output(stub, workspace, "echo kept > file")
    await mine.end(signal.SIGKILL)
    _antedate(mine.state / "registry.db", dt.timedelta(hours=1))
    async with mine.running() as stub:
        assert await output(stub, workspace, "cat file") == b"kept\n"
        lease_ends = (await listed(stub))[workspace.workspace_id].lease_expire_time
        assert lease_ends.ToDatetime(dt.UTC) > dt.datetime.now(dt.UTC)


def _antedate(registry: Path, by: dt.timedelta) -> None:
    """Has all leases end earlier, by what is written down."""
    with contextlib.closing(sqlite3.connect(registry)) as db, db:
        for workspace_id, text in db.execute("SELECT workspace_id, record FROM workspaces").fetchall():
            record = json.loads(text)
            workspace = record["workspace"]
            workspace["lease_expire_time"] = (
                dt.datetime.fromisoformat(workspace["lease_expire_time"]) - by
            ).isoformat()
            db.execute("UPDATE workspaces SET record = ? WHERE workspace_id = ?", (json.dumps(record), workspace_id))


@pytest.mark.docker
async def test_container_that_was_removed_meanwhile(mine: LastingService, engine: Engine) -> None:
    """Its workspace is no longer listed, and another one is not concerned."""
    async with mine.running() as stub:
        removed, kept = [(await stub.CreateWorkspace(create("runc"))).workspace for _ in range(2)]
    await mine.end(signal.SIGKILL)
    container = container_of(engine, removed.workspace_id)
    engine.api.request("DELETE", f"/containers/{container}", query={"force": "1", "v": "1"})
    async with mine.running() as stub:
        await _is_gone(stub, removed)
        assert await output(stub, kept, "echo here") == b"here\n"


async def test_guest_that_was_killed_meanwhile(mine: LastingService, directory: Path) -> None:
    """A local directory whose guest was killed is what nobody will end any more."""
    async with mine.running() as stub:
        workspace = (await stub.CreateWorkspace(create("local"))).workspace
    await mine.end(signal.SIGKILL)
    os.kill(_guest(directory), signal.SIGKILL)
    async with mine.running() as stub:
        await _is_gone(stub, workspace)
        await eventually(lambda: not Path(workspace.host_path).exists(), "the directory is removed")


@kinds
async def test_frozen_guest_lives_on(
    mine: LastingService, directory: Path, kind: str, engine_of: Engine | None
) -> None:
    """One that was frozen for longer than its lease, while its client went on renewing, has lost nothing."""
    async with mine.running() as stub:
        workspace = (await stub.CreateWorkspace(create(kind, lease_duration=seconds(LEASE)))).workspace
        await output(stub, workspace, "echo kept > file")
        renewals = asyncio.ensure_future(_renew(stub, workspace))
        try:
            with _frozen(workspace, directory, engine_of):
                # The time that passes is what is tested.
                await asyncio.sleep(1.5 * LEASE)
            assert (await stub.Execute(execute(workspace, "cat file"), timeout=20)).stdout.head == b"kept\n"
            assert workspace.workspace_id in await listed(stub)
        finally:
            renewals.cancel()
            await asyncio.gather(renewals, return_exceptions=True)
        await destroy(stub, workspace.workspace_id)


async def _renew(stub: Stub, workspace: pb.Workspace) -> None:
    """Renews as a client does: often, and whatever came of it."""
    request = pb.RenewWorkspaceRequest(workspace_id=workspace.workspace_id, lease_duration=seconds(LEASE))
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await stub.RenewWorkspace(request, timeout=1)
        await asyncio.sleep(LEASE / 10)


@contextlib.contextmanager
def _frozen(workspace: pb.Workspace, directory: Path, engine: Engine | None) -> Iterator[None]:
    if engine is None:
        guest = _guest(directory)
        os.kill(guest, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(guest, signal.SIGCONT)
        return
    container = container_of(engine, workspace.workspace_id)
    engine.api.request("POST", f"/containers/{container}/pause")
    try:
        yield
    finally:
        engine.api.request("POST", f"/containers/{container}/unpause")


def _guest(directory: Path) -> int:
    [guest] = [each.pid for each in belonging_to(directory) if each.arguments.endswith("serve")]
    return guest


async def _is_gone(stub: Stub, workspace: pb.Workspace) -> None:
    """Waits until a workspace is not listed any more; then nothing may be done with it."""

    async def unlisted() -> bool:
        return workspace.workspace_id not in await listed(stub)

    await eventually(unlisted, "the workspace is not listed")
    with refused(NOT_FOUND, "WORKSPACE_NOT_FOUND"):
        await stub.GetWorkspace(pb.GetWorkspaceRequest(workspace_id=workspace.workspace_id))
    with refused(NOT_FOUND, "WORKSPACE_NOT_FOUND"):
        await stub.Execute(execute(workspace, "true"))
