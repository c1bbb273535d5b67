"""A service ends, by a kill or in good order, and the next one on its state directory goes on where it was."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.engine import Engine
from tests.integration.lasting import (
    KINDS,
    LINGER,
    LastingService,
    create,
    destroy,
    execute,
    lasting,
    listed,
    output,
    written,
)
from tests.integration.wire import END, EventReader, Stub, refused, resume, start
from tests.support.engine_leaks import container_of
from tests.support.jobs import BLOCK_BYTES, bulk, bulk_block, new_mark

kinds = pytest.mark.parametrize("kind", KINDS)
ends = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
NOT_FOUND, UNAVAILABLE = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE
RUN = "echo run >> runs; echo $COLOUR; exit 5"
WAIT = "echo run >> waits; until [ -e go ]; do sleep 0.05; done; echo done"
BLOCKS = 48


@pytest.fixture
def ground(warm: None) -> None:
    """Nothing is asked of the shared service here."""


@pytest.fixture
async def mine(directory: Path) -> AsyncIterator[LastingService]:
    """The service that is ended and started again; a short grace, so that calls are cut by SIGTERM too."""
    async with lasting(directory, "--grace", "0.2") as mine:
        yield mine


async def write(stub: Stub, workspace: pb.Workspace, path: str, content: bytes) -> None:
    header = pb.WriteFileHeader(workspace_id=workspace.workspace_id, path=path)
    await stub.WriteFile(iter([pb.WriteFileRequest(header=header), pb.WriteFileRequest(data=content), END]))


async def read(stub: Stub, workspace: pb.Workspace, path: str) -> bytes:
    request = pb.ReadFileRequest(workspace_id=workspace.workspace_id, path=path)
    return b"".join([answer.data async for answer in stub.ReadFile(request)])


@pytest.mark.docker
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "local"])
async def test_container_that_was_started_anew_meanwhile(engine: Engine, mine: LastingService, kind: str) -> None:
    """By `docker restart`: its guest has the same key, and nothing of what the workspace had."""
    async with mine.running() as stub:
        workspace = (await stub.CreateWorkspace(create(kind))).workspace
        await write(stub, workspace, "acknowledged", b"whole")
    await mine.end(signal.SIGKILL)
    container = container_of(engine, workspace.workspace_id)
    await asyncio.to_thread(engine.api.request, "POST", f"/containers/{container}/restart", query={"t": "0"})
    async with mine.running() as stub:
        with refused(grpc.StatusCode.ABORTED, "WORKSPACE_LOST"):
            await read(stub, workspace, "acknowledged")
        await destroy(stub, workspace.workspace_id)


async def test_replica_that_is_renamed_lists_what_it_had(directory: Path) -> None:
    """Page by page: those of its former name are its own."""
    first, renamed = (LastingService(directory, "--replica", name) for name in ("one", "two"))
    async with first.running() as stub:
        made = [(await stub.CreateWorkspace(create("local"))).workspace.workspace_id for _ in range(3)]
    await first.end(signal.SIGTERM)
    try:
        async with renamed.running() as stub:
            request = pb.ListWorkspacesRequest(page_size=1)
            found: list[str] = []
            while not found or request.page_token:
                page = await stub.ListWorkspaces(request)
                found += [workspace.workspace_id for workspace in page.workspaces]
                request.page_token = page.next_page_token
        assert found == made
    finally:
        await renamed.aclose()


@kinds
@ends
async def test_workspace_is_as_it_was(mine: LastingService, kind: str, number: int) -> None:
    """Listed and described as before, with its files, its environment and its processes, by the same request."""
    labels = {"project": "a", "empty": ""}
    wanted = create(kind, labels=labels, environment={"COLOUR": "green"}, request_id=new_mark())
    async with mine.running() as stub:
        before = (await stub.CreateWorkspace(wanted)).workspace
        await write(stub, before, "notes", b"\0 kept")
        async with EventReader(stub, start(before, ["sleep", "1000"], detached=True)) as events:
            await events.until("started")
        before = (await listed(stub))[before.workspace_id]
    await mine.end(number)
    async with mine.running() as stub:
        assert (await listed(stub))[before.workspace_id] == before
        found = await stub.ListWorkspaces(pb.ListWorkspacesRequest(labels=labels))
        assert list(found.workspaces) == [before]
        described = (await stub.GetWorkspace(pb.GetWorkspaceRequest(workspace_id=before.workspace_id))).workspace
        described.ClearField("usage")
        assert described == before
        assert before.isolation.runtime == {"local": "local", "runc": "runc", "gvisor": "runsc"}[kind]
        kill = pb.SignalProcessRequest(workspace_id=before.workspace_id, process_id=events.process_id, signal=15)
        async with EventReader(stub, resume(before, events.process_id)) as again:
            await again.until("started")
            await stub.SignalProcess(kill)
            assert (await again.to_end()).signal == 15
        assert await read(stub, before, "notes") == b"\0 kept"
        assert await output(stub, before, "echo $COLOUR") == b"green\n"
        assert (await stub.CreateWorkspace(wanted)).workspace == before
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "request_id"):
            await stub.CreateWorkspace(create(kind, request_id=wanted.request_id))


@kinds
@ends
async def test_commands_are_joined_and_replayed(mine: LastingService, kind: str, number: int) -> None:
    """One that was under way gives its real result, one that was done gives it again, and none runs twice."""
    async with mine.running() as stub:
        workspace = (await stub.CreateWorkspace(create(kind, environment={"COLOUR": "green"}))).workspace
        done = execute(workspace, RUN, request_id="done", linger=LINGER)
        first = await stub.Execute(done)
        waiting = execute(workspace, WAIT, request_id="waiting", linger=LINGER)
        cut = asyncio.ensure_future(stub.Execute(waiting))
        await written(stub, workspace, "waits")
        await mine.end(number)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await cut
        assert raised.value.code() is UNAVAILABLE
    async with mine.running() as stub:
        joined = asyncio.ensure_future(stub.Execute(waiting))
        assert await stub.Execute(done) == first
        assert (first.stdout.head, first.termination.exit_code) == (b"green\n", 5)
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "request_id"):
            await stub.Execute(execute(workspace, "echo other", request_id="done", linger=LINGER))
        await output(stub, workspace, "touch go")
        assert (await joined).stdout.head == b"done\n"
        assert await output(stub, workspace, "cat runs waits") == b"run\nrun\n"


@kinds
@ends
async def test_stream_is_resumed_at_its_offset(mine: LastingService, kind: str, number: int) -> None:
    """What was read is not sent again, and what was not read is not lost, however much was on its way."""
    async with mine.running() as stub:
        workspace = (await stub.CreateWorkspace(create(kind))).workspace
        async with EventReader(stub, start(workspace, bulk(BLOCKS), linger=LINGER)) as first:
            while first.offset < 4 * BLOCK_BYTES:
                await first.next()
            await mine.end(number)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await first.to_end()
            assert raised.value.code() is UNAVAILABLE
    async with mine.running() as stub, EventReader(stub, resume(workspace, first.process_id, first.offset)) as second:
        assert (await second.to_end()).exit_code == 0
    assert first.lost_bytes == second.lost_bytes == 0
    assert first.text() + second.text() == b"".join(map(bulk_block, range(BLOCKS)))


@kinds
async def test_destroyed_workspace_is_not_made_again(mine: LastingService, kind: str) -> None:
    """A late repeat of the request that made it must not make another one."""
    wanted = create(kind, request_id=new_mark())
    async with mine.running() as stub:
        workspace = (await stub.CreateWorkspace(wanted)).workspace
        await destroy(stub, workspace.workspace_id)
    await mine.end(signal.SIGKILL)
    async with mine.running() as stub:
        with refused(NOT_FOUND, "WORKSPACE_NOT_FOUND"):
            await stub.CreateWorkspace(wanted)
        assert not await listed(stub)
