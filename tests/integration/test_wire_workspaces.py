"""Workspaces on the wire: described, listed in pages, renewed, expired, destroyed."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import grpc
import grpc.aio

from agentic_isolation._version import __version__
from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import Stub, a_workspace, call, refused, seconds, shell
from tests.support.eventually import eventually
from tests.support.jobs import new_mark
from tests.support.proc import mentioning


async def get(stub: Stub, workspace: pb.Workspace) -> pb.Workspace:
    return (await stub.GetWorkspace(pb.GetWorkspaceRequest(workspace_id=workspace.workspace_id))).workspace


def lease_left(workspace: pb.Workspace) -> float:
    return (workspace.lease_expire_time.ToDatetime(UTC) - datetime.now(UTC)).total_seconds()


async def test_new_workspace_is_ready_and_fully_described(stub: Stub) -> None:
    fields = {"labels": {"a": "1"}, "working_dir": "/srv/app", "lease_duration": seconds(90)}
    async with a_workspace(stub, **fields) as workspace:
        assert workspace.state == pb.WORKSPACE_STATE_READY
        assert (workspace.provider, workspace.image, workspace.working_dir) == ("local", "", "/srv/app")
        assert dict(workspace.labels) == {"a": "1"}
        assert 60 < lease_left(workspace) <= 90
        assert workspace.isolation.runtime == "local"
        assert workspace.isolation.no_new_privileges
        assert not workspace.isolation.HasField("pids_limit")
        described = await get(stub, workspace)
        assert described.HasField("usage")
        described.ClearField("usage")
        assert described == workspace


async def test_absent_fields_have_their_defaults(stub: Stub) -> None:
    async with a_workspace(stub, lease_duration=None) as workspace:
        assert workspace.working_dir == "/workspace"
        assert 270 < lease_left(workspace) <= 300


async def test_list_in_pages_by_labels(stub: Stub) -> None:
    run = {"run": new_mark()}
    async with contextlib.AsyncExitStack() as stack:
        ids = []
        for number in range(7):
            labels = run | {"parity": "odd" if number % 2 else "even"}
            ids.append((await stack.enter_async_context(a_workspace(stub, labels=labels))).workspace_id)
        for labels, page_size, expected in (
            (run, 3, ids),
            (run, 7, ids),
            (run, 0, ids),
            (run | {"parity": "odd"}, 2, ids[1::2]),
            (run | {"parity": "none"}, 2, []),
            (run | {"other": "x"}, 2, []),
        ):
            request = pb.ListWorkspacesRequest(labels=labels, page_size=page_size)
            assert await list_all(stub, request) == expected


async def list_all(stub: Stub, request: pb.ListWorkspacesRequest) -> list[str]:
    """Returns the ids of all pages."""
    found: list[str] = []
    while True:
        (page,) = await call(stub, request)
        assert len(page.workspaces) <= (request.page_size or 100)
        found += [workspace.workspace_id for workspace in page.workspaces]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_pages_go_on_when_the_last_workspace_seen_is_gone(stub: Stub) -> None:
    labels = {"run": new_mark()}
    async with (
        a_workspace(stub, labels=labels),
        a_workspace(stub, labels=labels) as second,
        a_workspace(stub, labels=labels) as third,
    ):
        request = pb.ListWorkspacesRequest(labels=labels, page_size=2)
        (page,) = await call(stub, request)
        assert page.workspaces[-1].workspace_id == second.workspace_id
        await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=second.workspace_id))
        request.page_token = page.next_page_token
        assert await list_all(stub, request) == [third.workspace_id]


async def test_renewing_sets_the_lease_from_now(stub: Stub, workspace: pb.Workspace) -> None:
    request = pb.RenewWorkspaceRequest(workspace_id=workspace.workspace_id, lease_duration=seconds(1000))
    answer = await stub.RenewWorkspace(request)
    renewed = await get(stub, workspace)
    assert renewed.lease_expire_time == answer.lease_expire_time
    assert 980 < lease_left(renewed) <= 1000
    # Without a duration: as long as it was renewed with.
    await stub.RenewWorkspace(pb.RenewWorkspaceRequest(workspace_id=workspace.workspace_id))
    assert 980 < lease_left(await get(stub, workspace)) <= 1000
    # A lease may get shorter, too.
    request.lease_duration.CopyFrom(seconds(30))
    await stub.RenewWorkspace(request)
    assert 10 < lease_left(await get(stub, workspace)) <= 30


async def test_lease_that_runs_out_takes_everything_along(stub: Stub) -> None:
    mark = new_mark()
    async with a_workspace(stub, lease_duration=seconds(1)) as workspace:
        request = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell(f"sleep {mark}"))
        with contextlib.suppress(grpc.aio.AioRpcError):
            await stub.Execute(request)
        await eventually(lambda: not mentioning(mark), "the command is gone")

        async def gone() -> bool:
            try:
                await get(stub, workspace)
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.NOT_FOUND
            return False

        await eventually(gone, "the workspace is gone")


async def test_renewed_lease_does_not_run_out(stub: Stub) -> None:
    async with a_workspace(stub, lease_duration=seconds(1.5)) as workspace:
        request = pb.RenewWorkspaceRequest(workspace_id=workspace.workspace_id, lease_duration=seconds(60))
        await stub.RenewWorkspace(request)
        sleep = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell("sleep 2.5; echo here"))
        assert (await stub.Execute(sleep)).stdout.head == b"here\n"


async def test_destroying_is_final(stub: Stub, workspace: pb.Workspace) -> None:
    mark = new_mark()
    name = workspace.workspace_id
    background = shell(f"setsid sleep {mark} >/dev/null 2>&1 &")
    await stub.Execute(pb.ExecuteRequest(workspace_id=name, command=background))
    await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=name))
    assert not mentioning(mark), "it returns when nothing is left"
    for request in (pb.DestroyWorkspaceRequest(workspace_id=name), pb.GetWorkspaceRequest(workspace_id=name)):
        with refused(grpc.StatusCode.NOT_FOUND, "WORKSPACE_NOT_FOUND"):
            await call(stub, request)


async def test_server_describes_itself(stub: Stub) -> None:
    info = await stub.GetServerInfo(pb.GetServerInfoRequest())
    assert info.version == __version__
    (local,) = [provider for provider in info.providers if provider.name == "local"]
    assert (local.available, local.unavailable_reason, local.isolation.runtime) == (True, "", "local")
    assert info.limits.lease_duration.seconds == 24 * 3600
    assert info.limits.output_limit_bytes == 16 << 20
    assert info.limits.message_bytes == 4 << 20
    assert info.limits.workspaces_count > 0
