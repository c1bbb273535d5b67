"""Every call finds the replica that has its workspace, whatever its client knows of replicas."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from agentic_isolation import AgenticWorkspace, ServiceClient, WrongReplicaError
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
from tests.integration.wire import END, Refusal, Stub, a_workspace, call, connected, host_files, refused, shell, start
from tests.mesh.conftest import Mesh, use
from tests.support.envoy import DEPLOY, Envoy
from tests.support.eventually import eventually
from tests.support.jobs import new_mark

SERVICE = pb.DESCRIPTOR.services_by_name["WorkspaceService"]
WRONG = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_REPLICA")
ABOUT_NO_WORKSPACE = {"ListWorkspaces", "PullImage", "GetServerInfo"}


@pytest.fixture
async def spread(stub: Stub) -> AsyncIterator[dict[str, pb.Workspace]]:
    """A workspace on each replica, by its name."""
    made: dict[str, pb.Workspace] = {}
    while len(made) < 2:
        workspace = (await stub.CreateWorkspace(pb.CreateWorkspaceRequest(provider="local"))).workspace
        name = workspace.workspace_id.split("-")[1]
        if name in made:
            await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id))
        else:
            made[name] = workspace
    yield made
    for workspace in made.values():
        await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id))


def test_envoy_reads_the_workspace_of_every_rpc() -> None:
    """One that was added to the contract and not to Envoy's configuration would go anywhere."""
    text = (DEPLOY / "envoy.yaml").read_text()
    known = set(re.findall(rf"{SERVICE.full_name}\.(\w+):\s", text))
    assert known == {method.name for method in SERVICE.methods} - ABOUT_NO_WORKSPACE


async def test_clients_that_know_nothing_of_replicas(stub: Stub, spread: dict[str, pb.Workspace]) -> None:
    """The first message of a call says which workspace it is about, in every shape that calls have."""
    for _ in range(3):
        for name, workspace in spread.items():
            workspace_id = workspace.workspace_id
            assert re.fullmatch(f"ws-{name}-[a-z2-7]{{20}}", workspace_id)
            header = pb.WriteFileHeader(workspace_id=workspace_id, path="file")
            await stub.WriteFile(iter([pb.WriteFileRequest(header=header), pb.WriteFileRequest(data=b"hi"), END]))
            read = [
                answer async for answer in stub.ReadFile(pb.ReadFileRequest(workspace_id=workspace_id, path="file"))
            ]
            assert read[1].data == b"hi"
            result = await stub.Execute(pb.ExecuteRequest(workspace_id=workspace_id, command=shell("cat file")))
            assert result.stdout.head == b"hi"
            events = await call(stub, start(workspace, shell("cat file")))
            assert events[1].output.data == b"hi"
            opening = pb.AttachOpen(workspace_id=workspace_id, start=pb.ProcessStart(command=shell("cat file")))
            events = await call(stub, pb.AttachRequest(open=opening))
            assert b"hi" in [event.output.data for event in events]


async def test_large_request_is_read_and_routed(stub: Stub, spread: dict[str, pb.Workspace]) -> None:
    """Envoy holds it back until it knows where to; one that is too large for the service is refused there."""
    for workspace in spread.values():
        request = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell("wc -c", stdin=bytes(1 << 20)))
        assert (await stub.Execute(request)).stdout.head.strip() == b"1048576"
        request.command.stdin = bytes(4_000_000)
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "command.stdin"):
            await stub.Execute(request)


async def test_compressed_calls_go_where_their_metadata_say(mesh: Mesh, spread: dict[str, pb.Workspace]) -> None:
    """Envoy does not read what is compressed, and lets it through. A call about a workspace then has to name it."""
    options = [("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(mesh.target, options, compression=grpc.Compression.Gzip) as channel:
        stub: Stub = pb_grpc.WorkspaceServiceStub(channel)
        assert (await stub.GetServerInfo(pb.GetServerInfoRequest())).replica in spread
        for _ in range(3):
            for workspace in spread.values():
                metadata = (("agentic-isolation-workspace", workspace.workspace_id),)
                header = pb.WriteFileHeader(workspace_id=workspace.workspace_id, path="file")
                upload = iter([pb.WriteFileRequest(header=header), pb.WriteFileRequest(data=b"hi" * 512), END])
                await stub.WriteFile(upload, metadata=metadata)
                request = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell("wc -c; wc -c < file"))
                request.command.stdin = bytes(1 << 20)
                assert (await stub.Execute(request, metadata=metadata)).stdout.head.split() == [b"1048576", b"1024"]
                events = [event async for event in stub.Stream(start(workspace, shell("echo hi")), metadata=metadata)]
                assert events[1].output.data == b"hi\n"


async def test_call_that_asks_for_nothing_is_ended(mesh: Mesh, private_temporary_directory: Path) -> None:
    """Before its first message nobody has asked who calls. After it a call may be silent for as long as it likes."""

    def change(text: str) -> str:
        assert text.count("idle_timeout: 30s") == 1
        return text.replace("idle_timeout: 30s", "idle_timeout: 0.5s")

    async def silent(*messages: Any) -> AsyncIterator[Any]:
        for message in messages:
            yield message
        await over.wait()

    over = asyncio.Event()
    ports = {replica.name: replica.port for replica in mesh.replicas}
    with Envoy(private_temporary_directory / "hasty", ports, change) as envoy:
        await use(envoy, mesh.replicas)
        async with connected(envoy.target) as stub, a_workspace(stub) as workspace:
            for method in (stub.Attach, stub.WriteFile, stub.WriteArchive):
                call: Any = method(silent(), timeout=20)
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await (call.read() if method is stub.Attach else call)
                assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            opening = pb.AttachOpen(workspace_id=workspace.workspace_id)
            opening.start.command.shell = "sleep 1.5; echo done"
            events = [event async for event in stub.Attach(silent(pb.AttachRequest(open=opening)))]
            assert [event.output.data for event in events if event.HasField("output")] == [b"done\n"]
            execute = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell("sleep 1.5"))
            assert (await stub.Execute(execute)).termination.exit_code == 0
            over.set()


async def test_metadata_chooses_a_replica(mesh: Mesh, stub: Stub, spread: dict[str, pb.Workspace]) -> None:
    """What is about no workspace goes to the one that is named."""
    for name, workspace in spread.items():
        metadata = (("agentic-isolation-replica", name),)
        for _ in range(3):
            assert (await stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=metadata)).replica == name
            listed = await stub.ListWorkspaces(pb.ListWorkspacesRequest(), metadata=metadata)
            assert workspace in listed.workspaces
            async with ServiceClient(mesh.target, replica=name) as service:
                assert (await service.info()).replica == name
                assert workspace.workspace_id in [found.id async for found in service.list_workspaces()]


async def test_calls_are_logged_for_programs(mesh: Mesh, stub: Stub, spread: dict[str, pb.Workspace]) -> None:
    """Where a call went and how it ended; nothing of what was said in it."""
    for name, workspace in spread.items():
        await stub.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell("echo confidential")))

        def logged(workspace_id: str = workspace.workspace_id) -> list[Any]:
            return [call for call in mesh.envoy.access_log if call["workspace"] == workspace_id]

        await eventually(logged, "the call is logged", within=30)
        [call] = logged()
        assert (call["method"], call["replica"]) == (f"/{SERVICE.full_name}/Execute", name)
        assert (call["grpc_status"], call["attempts"]) == ("OK", 1)
        assert "confidential" not in str(call)


async def test_replica_that_is_not_there(stub: Stub) -> None:
    """There is nobody to ask, and nothing is known of the workspace: it may come back."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.GetWorkspace(pb.GetWorkspaceRequest(workspace_id="ws-three-aaaaaaaaaaaaaaaaaaaa"))
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_wrong_replica_says_which_one_is_right(mesh: Mesh, spread: dict[str, pb.Workspace]) -> None:
    """Before anything else, whatever the RPC; the answer is for programs, for people and for proxies."""
    mine, other = mesh.replicas
    workspace = spread[other.name]
    workspace_id = workspace.workspace_id
    async with connected(mine.address) as stub:
        for request in (
            pb.GetWorkspaceRequest(workspace_id=workspace_id),
            pb.RenewWorkspaceRequest(workspace_id=workspace_id),
            pb.DestroyWorkspaceRequest(workspace_id=workspace_id),
            pb.ExecuteRequest(workspace_id=workspace_id, command=shell("touch wrong"), request_id="x"),
            start(workspace, shell("touch wrong")),
            pb.AttachRequest(open=pb.AttachOpen(workspace_id=workspace_id, start=pb.ProcessStart(command=shell("id")))),
            pb.SignalProcessRequest(workspace_id=workspace_id, process_id="p", signal=9, tree=True),
            pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id=workspace_id, path="wrong")),
            pb.ReadFileRequest(workspace_id=workspace_id, path="wrong"),
            pb.ListDirectoryRequest(workspace_id=workspace_id),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(stub, request)
            assert Refusal.of(raised.value) == WRONG, request
            metadata: Any = dict(raised.value.trailing_metadata() or ())
            assert metadata["agentic-isolation-replica"] == other.name
        with refused(grpc.StatusCode.NOT_FOUND, "WORKSPACE_NOT_FOUND"):
            await stub.GetWorkspace(pb.GetWorkspaceRequest(workspace_id=f"ws-{mine.name}-{'a' * 20}"))
    assert host_files(workspace) == []


async def test_pages_of_a_listing_are_one_replicas(mesh: Mesh, spread: dict[str, pb.Workspace]) -> None:
    """A token that reaches another replica is refused there, and our client goes on with it where it belongs."""
    mark = new_mark()
    mine, other = mesh.replicas
    async with (
        connected(mine.address) as stub,
        a_workspace(stub, labels={"m": mark}),
        a_workspace(stub, labels={"m": mark}),
    ):
        request = pb.ListWorkspacesRequest(labels={"m": mark}, page_size=1)
        request.page_token = (await stub.ListWorkspaces(request)).next_page_token
        async with connected(other.address) as wrong:
            with refused(WRONG.code, "WRONG_REPLICA"):
                await wrong.ListWorkspaces(request)
        async with ServiceClient(mesh.target) as service:
            connection = service._connection
            for _ in range(8):
                assert len((await connection.call(connection.stub.ListWorkspaces, request)).workspaces) == 1


@pytest.fixture(scope="module")
def by_name_only(mesh: Mesh, private_temporary_directory: Path) -> Any:
    """A proxy that knows of workspaces nothing, and routes calls by the name of a replica where they have one."""

    def change(text: str) -> str:
        known = 'headers:get("agentic-isolation-workspace")\n'
        assert text.count(known) == 1
        return text.replace(known, "nil\n").replace('first(fields, "workspace_id"', 'first({}, "workspace_id"')

    ports = {replica.name: replica.port for replica in mesh.replicas}
    with Envoy(private_temporary_directory / "by-name", ports, change) as envoy:
        asyncio.run(use(envoy, mesh.replicas))
        yield envoy


@pytest.fixture
def ground(mesh: Mesh, by_name_only: Envoy) -> None:
    """Both proxies are up before accounts are taken."""


async def test_client_goes_on_where_it_was_sent(by_name_only: Envoy, mesh: Mesh) -> None:
    """With a proxy that spreads calls blindly, half of the first ones go wrong; users see nothing of it."""
    for _ in range(4):
        async with AgenticWorkspace.create(provider="local", target=by_name_only.target) as workspace:
            await workspace.write_file("a", "content")
            assert (await workspace.execute("cat a")).stdout == "content"
            assert [line async for line in workspace.stream("echo 1; echo 2")] == ["1", "2"]
            async with await workspace.start("cat") as process:
                await process.write("typed\n")
                assert await anext(process.lines()) == "typed"
        async with AgenticWorkspace.create(provider="local", target=by_name_only.target, retry_timeout=0) as workspace:
            assert (await workspace.execute("echo at once")).stdout == "at once\n"


async def test_wrong_replica_without_a_proxy(mesh: Mesh, spread: dict[str, pb.Workspace]) -> None:
    """Metadata change nothing where nobody routes by them: the client is told after one repeat, and does not loop."""
    mine, other = mesh.replicas
    async with asyncio.timeout(10):
        with pytest.raises(WrongReplicaError, match=f"repeat the call with metadata .*: {other.name}") as raised:
            await AgenticWorkspace.connect(spread[other.name].workspace_id, target=mine.address)
    assert raised.value.replica == other.name
