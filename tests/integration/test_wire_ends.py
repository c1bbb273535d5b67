"""What ends a process that was started over the wire: lingers, deadlines, cancellation, timeouts, its workspace."""

from __future__ import annotations

import asyncio
import time

import grpc
import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.counting import LINES, count, counted
from tests.integration.wire import EventReader, Refusal, Stub, call, host_file, resume, seconds, shell, start
from tests.support.eventually import eventually
from tests.support.jobs import TREE_SIZE, new_mark, tree
from tests.support.proc import mentioning

STDOUT, STDERR = pb.OUTPUT_SOURCE_STDOUT, pb.OUTPUT_SOURCE_STDERR


async def gone(mark: str) -> None:
    """Waits until no process with the mark is left."""
    await eventually(lambda: not mentioning(mark), "the tree is gone")


async def test_linger_that_runs_out_kills_the_tree(stub: Stub, workspace: pb.Workspace) -> None:
    mark = new_mark()
    async with EventReader(stub, start(workspace, tree(mark), linger=seconds(1.5))) as events:
        await events.until("output")
        cut_at = time.monotonic()
    await gone(mark)
    assert time.monotonic() - cut_at >= 1.5


async def test_resuming_in_time_stops_the_linger(stub: Stub, workspace: pb.Workspace) -> None:
    command = shell("echo ready; until [ -e go ]; do sleep 0.05; done; echo done")
    async with EventReader(stub, start(workspace, command, linger=seconds(1.5))) as events:
        await events.until("output")
        cut_at = time.monotonic()
    request = resume(workspace, events.process_id, events.offset)
    request.keepalive_interval.FromMilliseconds(1000)
    async with EventReader(stub, request) as again:
        while time.monotonic() - cut_at < 2.5:
            await again.next()
        host_file(workspace, "go").touch()
        assert (await again.to_end()).exit_code == 0
    assert again.text() == b"done\n"


async def test_detached_process_goes_on_without_readers(stub: Stub, workspace: pb.Workspace) -> None:
    """Its oldest output is dropped when its log is full, and its readers are told how much."""
    async with EventReader(stub, start(workspace, count(LINES, finish="finished"), detached=True)) as events:
        await events.until("started")
    await eventually(host_file(workspace, "finished").exists, "the process has written everything")
    async with EventReader(stub, resume(workspace, events.process_id)) as again:
        assert (await again.to_end()).exit_code == 0
    assert 0 < again.lost_bytes < LINES * 10
    assert again.offset == LINES * 10
    assert counted(STDOUT, LINES).endswith(again.text(STDOUT))
    assert counted(STDERR, LINES).endswith(again.text(STDERR))


async def test_detached_process_ends_with_its_workspace(stub: Stub, workspace: pb.Workspace) -> None:
    mark = new_mark()
    async with EventReader(stub, start(workspace, tree(mark), detached=True)) as events:
        await events.until("output")
    assert len(mentioning(mark)) == TREE_SIZE
    await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id))
    assert not mentioning(mark)


async def test_calls_under_way_when_their_workspace_is_destroyed(stub: Stub, workspace: pb.Workspace) -> None:
    """They are told how their command has ended, or the same as all calls after them: there is nothing to try again."""
    workspace_id, marks = workspace.workspace_id, [new_mark(), new_mark()]
    execute, streamed = (start(workspace, tree(mark)) for mark in marks)
    calls = [
        asyncio.create_task(call(stub, request))
        for request in (
            pb.ExecuteRequest(workspace_id=workspace_id, command=execute.start.command),
            streamed,
            pb.WatchDirectoryRequest(workspace_id=workspace_id),
        )
    ]
    await eventually(lambda: all(len(mentioning(mark)) >= TREE_SIZE for mark in marks), "the trees have grown")
    await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace_id))
    ends = await asyncio.gather(*calls, return_exceptions=True)
    refusals = {Refusal.of(ended) for ended in ends if isinstance(ended, grpc.aio.AioRpcError)}
    assert refusals == {Refusal(grpc.StatusCode.NOT_FOUND, "WORKSPACE_NOT_FOUND")}


@pytest.mark.parametrize("rpc", ["execute", "stream"])
@pytest.mark.parametrize("end", ["deadline", "cancellation"])
async def test_call_that_ends_early_kills_the_tree(stub: Stub, workspace: pb.Workspace, rpc: str, end: str) -> None:
    mark = new_mark()
    timeout = 4 if end == "deadline" else None
    request = start(workspace, tree(mark))

    async def run() -> None:
        if rpc == "execute":
            execute = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=request.start.command)
            await stub.Execute(execute, timeout=timeout)
        else:
            async for _ in stub.Stream(request, timeout=timeout):
                pass

    running = asyncio.create_task(run())
    await eventually(lambda: len(mentioning(mark)) >= TREE_SIZE, "the tree has grown")
    if end == "deadline":
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await running
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    else:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    await gone(mark)


async def test_deadline_with_linger_leaves_the_command_to_be_joined(stub: Stub, workspace: pb.Workspace) -> None:
    request = pb.ExecuteRequest(
        workspace_id=workspace.workspace_id,
        command=shell("echo run >> runs; until [ -e go ]; do sleep 0.05; done; cat runs"),
        linger=seconds(60),
        request_id="joined-later",
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Execute(request, timeout=0.5)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    host_file(workspace, "go").touch()
    assert (await stub.Execute(request)).stdout.head == b"run\n"


async def test_kill_grace_lets_a_command_clean_up(stub: Stub, workspace: pb.Workspace) -> None:
    line = "trap 'echo cleaned; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    command = shell(line, timeout=seconds(0.5), kill_grace=seconds(30))
    async with EventReader(stub, start(workspace, command)) as events:
        termination = await events.to_end()
    assert termination.cause == pb.TERMINATION_CAUSE_TIMEOUT
    assert termination.survivors == 0
    assert events.text(STDOUT) == b"ready\ncleaned\n"


async def test_kill_grace_ends(stub: Stub, workspace: pb.Workspace) -> None:
    """The tree holds processes that ignore SIGTERM, with daemons among them."""
    mark = new_mark()
    command = pb.Command(argv=pb.ArgumentList(args=tree(mark)), timeout=seconds(2), kill_grace=seconds(0.5))
    result = await stub.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=command))
    assert result.termination.cause == pb.TERMINATION_CAUSE_TIMEOUT
    assert result.termination.survivors == 0
    assert result.termination.duration.ToTimedelta().total_seconds() >= 2
    assert not mentioning(mark)


async def test_kill_grace_holds_for_a_cancelled_call(stub: Stub, workspace: pb.Workspace) -> None:
    line = "trap 'touch cleaned; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    async with EventReader(stub, start(workspace, shell(line, kill_grace=seconds(30)))) as events:
        await events.until("output")
    await eventually(host_file(workspace, "cleaned").exists, "the command was told to end")
