"""A service that may open few files: it refuses workspaces before it can hear of nobody any more."""

from __future__ import annotations

import contextlib

import grpc.aio

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import LEASE, argv, connected, refused, seconds
from tests.support.eventually import eventually
from tests.support.open_files import open_files
from tests.support.service import ServedProcess

FEW = 80
MOST = 60
"""Workspaces, more than there can be."""


async def test_workspaces_leave_descriptors_for_connections() -> None:
    create = pb.CreateWorkspaceRequest(provider="local", lease_duration=seconds(LEASE))
    with contextlib.ExitStack() as stack:
        with open_files(FEW):
            served = stack.enter_context(
                ServedProcess("--address", "127.0.0.1:0", "--provider", "local", from_nothing=True)
            )
        made: list[pb.Workspace] = []
        async with connected(served.target) as stub:

            async def makes_one_more() -> bool:
                try:
                    made.append((await stub.CreateWorkspace(create)).workspace)
                except grpc.aio.AioRpcError:
                    return False
                return True

            while await makes_one_more():
                assert len(made) < MOST
            assert len(made) > 5
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "CAPACITY") as caught:
                await stub.CreateWorkspace(create)
            assert "limit of open files" in caught.message
            for _ in range(3):
                async with connected(served.target) as other:
                    await other.GetServerInfo(pb.GetServerInfoRequest(), timeout=10)
                    command = pb.ExecuteRequest(workspace_id=made[-1].workspace_id, command=argv("true"))
                    assert (await other.Execute(command, timeout=10)).termination.exit_code == 0
            async with connected(served.target) as other:
                for workspace in made[:3]:
                    await other.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id))
            await eventually(makes_one_more, "there is room again")
        assert "WARNING" not in served.log.upper()
