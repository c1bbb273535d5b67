"""Requests that come again, as a mesh or a client repeats them: joined or replayed, and never carried out twice.

Each command appends to the file `runs`, so that a second run would be seen.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration import wire
from tests.integration.wire import EventReader, Stub, a_workspace, host_file, refused, seconds, shell
from tests.support.eventually import eventually
from tests.support.jobs import new_mark
from tests.support.proc import mentioning

RUN = "echo run >> runs; echo out; echo err >&2; exit 5"
WAIT = "echo run >> runs; echo began; until [ -e go ]; do sleep 0.05; done; echo done"
LINGER = seconds(60)


def execute(workspace: pb.Workspace, line: str, **fields: Any) -> pb.ExecuteRequest:
    command = shell(line, **fields.pop("command", {}))
    settings: dict[str, Any] = {"request_id": "id-1", "linger": LINGER} | fields
    return pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=command, **settings)


def stream(workspace: pb.Workspace, line: str, **fields: Any) -> pb.StreamRequest:
    start = pb.ProcessStart(command=shell(line, **fields.pop("command", {})), line_mode=fields.pop("line_mode", False))
    settings: dict[str, Any] = {"request_id": "id-1", "linger": LINGER} | fields
    return pb.StreamRequest(workspace_id=workspace.workspace_id, start=start, **settings)


def create(**fields: Any) -> pb.CreateWorkspaceRequest:
    settings: dict[str, Any] = {"provider": "local", "lease_duration": LINGER, "request_id": new_mark()} | fields
    return pb.CreateWorkspaceRequest(**settings)


def runs(workspace: pb.Workspace) -> int:
    """How often a command ran."""
    return host_file(workspace, "runs").read_text().count("run\n")


async def test_execute_is_replayed(stub: Stub, workspace: pb.Workspace) -> None:
    request = execute(workspace, RUN)
    first = await stub.Execute(request)
    assert (first.stdout.head, first.stderr.head, first.termination.exit_code) == (b"out\n", b"err\n", 5)
    for _ in range(3):
        assert await stub.Execute(request) == first
    assert runs(workspace) == 1


async def test_execute_is_joined_by_many(stub: Stub, workspace: pb.Workspace) -> None:
    """All arrive at once, before the first has started anything; each would like to be the one that feeds it."""
    request = execute(workspace, "echo run >> runs; cat", command={"stdin": b"input" * 1000})
    answers = await asyncio.gather(*(stub.Execute(request) for _ in range(24)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0].stdout.head == b"input" * 1000
    assert runs(workspace) == 1


async def test_execute_is_joined_while_it_runs(stub: Stub, workspace: pb.Workspace) -> None:
    request = execute(workspace, WAIT)
    first = asyncio.ensure_future(stub.Execute(request))
    await eventually(host_file(workspace, "runs").exists, "it runs")
    second = asyncio.ensure_future(stub.Execute(request))
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Execute(request, timeout=0.3)
    host_file(workspace, "go").touch()
    assert await first == await second
    assert runs(workspace) == 1


async def test_execute_whose_connection_broke_is_taken_up_again(stub: Stub, workspace: pb.Workspace) -> None:
    request = execute(workspace, WAIT)
    first = asyncio.ensure_future(stub.Execute(request))
    await eventually(host_file(workspace, "runs").exists, "it runs")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    host_file(workspace, "go").touch()
    assert (await stub.Execute(request)).stdout.head == b"began\ndone\n"
    assert runs(workspace) == 1


async def test_stream_is_joined_and_replayed_from_its_beginning(stub: Stub, workspace: pb.Workspace) -> None:
    request = stream(workspace, WAIT)
    async with EventReader(stub, request) as first:
        await first.until("output")
        async with EventReader(stub, request) as second:
            await second.until("output")
            first.cut()
            host_file(workspace, "go").touch()
            assert (await second.to_end()).exit_code == 0
    async with EventReader(stub, request) as third:
        await third.to_end()
    assert first.process_id == second.process_id == third.process_id
    assert second.text() == third.text() == b"began\ndone\n"
    assert runs(workspace) == 1


async def test_stream_without_linger_lives_on_with_a_second_reader(stub: Stub, workspace: pb.Workspace) -> None:
    request = stream(workspace, WAIT, linger=None)
    async with EventReader(stub, request) as first:
        await first.until("output")
        async with EventReader(stub, request) as second:
            await second.until("output")
            first.cut()
            host_file(workspace, "go").touch()
            assert (await second.to_end()).exit_code == 0
    assert second.text() == b"began\ndone\n"


async def test_streams_that_arrive_at_once(stub: Stub, workspace: pb.Workspace) -> None:
    request = stream(workspace, "echo run >> runs; cat", command={"stdin": b"input" * 1000})
    readers = [EventReader(stub, request) for _ in range(16)]
    await asyncio.gather(*(reader.to_end() for reader in readers))
    assert len({reader.process_id for reader in readers}) == 1
    assert {reader.text() for reader in readers} == {b"input" * 1000}
    assert runs(workspace) == 1


async def test_keepalive_interval_is_no_content(stub: Stub, workspace: pb.Workspace) -> None:
    """How a reader wants to be told that the stream is alive is its own affair."""
    async with EventReader(stub, stream(workspace, RUN)) as first:
        await first.to_end()
    async with EventReader(stub, stream(workspace, RUN, keepalive_interval=seconds(1))) as second:
        await second.to_end()
    assert first.process_id == second.process_id


async def test_result_is_remembered_without_a_linger(stub: Stub, workspace: pb.Workspace) -> None:
    """A linger is for processes that run; results have the window."""
    for request in (execute(workspace, RUN, linger=None), stream(workspace, RUN, linger=None, request_id="id-2")):
        first = await wire.call(stub, request)
        before = runs(workspace)
        assert (await wire.call(stub, request))[-1] == first[-1]
        assert runs(workspace) == before


async def test_request_that_was_forbidden_before_it_came_is_not_carried_out(
    stub: Stub, workspace: pb.Workspace
) -> None:
    """A client gives a call up, and that overtakes the call itself."""
    forbid = pb.SignalProcessRequest(workspace_id=workspace.workspace_id, request_id="id-1", signal=9, tree=True)
    await stub.SignalProcess(forbid)
    for request in (execute(workspace, RUN), stream(workspace, RUN)):
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "RESULT_FORGOTTEN"):
            await wire.call(stub, request)
    assert not host_file(workspace, "runs").exists()


async def test_killing_a_request_returns_when_its_tree_has_ended(stub: Stub, workspace: pb.Workspace) -> None:
    mark = new_mark()
    running = asyncio.ensure_future(stub.Execute(execute(workspace, f"setsid sleep {mark} & sleep {mark}")))
    await eventually(lambda: len(mentioning(mark)) >= 2, "it runs")
    kill = pb.SignalProcessRequest(workspace_id=workspace.workspace_id, request_id="id-1", signal=9, tree=True)
    await stub.SignalProcess(kill)
    assert not mentioning(mark)
    assert (await running).termination.cause == pb.TERMINATION_CAUSE_KILLED
    await stub.SignalProcess(kill)


async def test_same_id_with_other_content(stub: Stub, workspace: pb.Workspace) -> None:
    await stub.Execute(execute(workspace, RUN))
    for other in (
        execute(workspace, RUN + "; true"),
        execute(workspace, RUN, command={"timeout": seconds(10)}),
        execute(workspace, RUN, command={"kill_grace": seconds(1)}),
        execute(workspace, RUN, command={"stdin": b""}),
        execute(workspace, RUN, command={"environment": {"A": "b"}}),
        execute(workspace, RUN, command={"working_dir": "/workspace"}),
        execute(workspace, RUN, output_limit_bytes=100),
        execute(workspace, RUN, linger=seconds(61)),
        stream(workspace, RUN),
        stream(workspace, RUN, line_mode=True),
    ):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "request_id"):
            await wire.call(stub, other)
    assert runs(workspace) == 1


async def test_id_belongs_to_its_workspace(stub: Stub, workspace: pb.Workspace) -> None:
    async with a_workspace(stub) as other:
        first = await stub.Execute(execute(workspace, RUN))
        second = await stub.Execute(execute(other, "echo run >> runs; echo else"))
        assert (first.termination.exit_code, second.termination.exit_code) == (5, 0)
        assert runs(workspace) == runs(other) == 1


async def test_what_was_refused_is_not_remembered(stub: Stub, workspace: pb.Workspace) -> None:
    """A repeat is carried out when it can be: nothing had run."""
    request = execute(workspace, "", command={})
    request.command.argv.args.append("./program")
    with refused(grpc.StatusCode.NOT_FOUND, "PROGRAM_NOT_FOUND"):
        await stub.Execute(request)
    program = host_file(workspace, "program")
    program.write_text("#!/bin/sh\necho run >> runs\n")
    program.chmod(0o755)
    assert (await stub.Execute(request)).termination.exit_code == 0
    await stub.Execute(request)
    assert runs(workspace) == 1


async def test_create_is_replayed(stub: Stub) -> None:
    mark = new_mark()
    request = create(labels={"mark": mark})
    async with a_workspace(stub, labels=request.labels, request_id=request.request_id, lease_duration=LINGER) as first:
        assert (await stub.CreateWorkspace(request)).workspace.workspace_id == first.workspace_id
        listed = await stub.ListWorkspaces(pb.ListWorkspacesRequest(labels={"mark": mark}))
        assert [workspace.workspace_id for workspace in listed.workspaces] == [first.workspace_id]


async def test_create_is_joined_by_many(stub: Stub) -> None:
    mark = new_mark()
    request = create(labels={"mark": mark})
    answers = await asyncio.gather(*(stub.CreateWorkspace(request) for _ in range(12)))
    listed = await stub.ListWorkspaces(pb.ListWorkspacesRequest(labels={"mark": mark}))
    for workspace in listed.workspaces:
        await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id))
    assert {answer.workspace.workspace_id for answer in answers} == {w.workspace_id for w in listed.workspaces}
    assert len(listed.workspaces) == 1


async def test_create_goes_on_while_one_caller_waits(stub: Stub) -> None:
    """Wherever in its way the first is cancelled, the second gets a workspace that works; it may have to ask again."""
    for turns in range(0, 40, 4):
        request = create()
        first = asyncio.ensure_future(stub.CreateWorkspace(request))
        second = asyncio.ensure_future(_create_with_retries(stub, request))
        for _ in range(turns):
            await asyncio.sleep(0.001)
        first.cancel()
        workspace = await second
        await asyncio.gather(first, return_exceptions=True)
        result = await stub.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell("echo hi")))
        assert result.stdout.head == b"hi\n"
        await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id))


async def _create_with_retries(stub: Stub, request: pb.CreateWorkspaceRequest) -> pb.Workspace:
    """Does what the contract asks of clients: UNAVAILABLE is retried with the same request_id."""
    while True:
        try:
            return (await stub.CreateWorkspace(request)).workspace
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        await asyncio.sleep(0.01)


async def test_create_that_nobody_waits_for_leaves_nothing(stub: Stub) -> None:
    """Wherever in its way it is cancelled. An answer that was on its way by then leaves its workspace to the lease."""
    mark = new_mark()
    for turns in range(0, 40, 4):
        request = create(labels={"mark": mark}, lease_duration=seconds(1))
        calls = [asyncio.ensure_future(stub.CreateWorkspace(request)) for _ in range(2)]
        for _ in range(turns):
            await asyncio.sleep(0.001)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def all_gone() -> bool:
        return not (await stub.ListWorkspaces(pb.ListWorkspacesRequest(labels={"mark": mark}))).workspaces

    await eventually(all_gone, "no workspace is left")


async def test_create_with_other_content(stub: Stub) -> None:
    request = create()
    async with a_workspace(stub, request_id=request.request_id, lease_duration=LINGER):
        for other in (
            create(request_id=request.request_id, labels={"a": "b"}),
            create(request_id=request.request_id, environment={"A": "b"}),
            create(request_id=request.request_id, working_dir="/elsewhere"),
            create(request_id=request.request_id, lease_duration=seconds(61)),
        ):
            with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "request_id"):
                await stub.CreateWorkspace(other)


async def test_killed_run_is_not_made_again(stub: Stub, workspace: pb.Workspace) -> None:
    """The first call was cut and its process killed. A repeat must not start the command anew."""
    mark = new_mark()
    request = execute(workspace, f"echo run >> runs; sleep {mark}", linger=None)
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Execute(request, timeout=1)
    await eventually(lambda: not mentioning(mark), "it was killed")
    assert (await stub.Execute(request)).termination.cause == pb.TERMINATION_CAUSE_KILLED
    assert runs(workspace) == 1
