"""Bad requests, as any client may send them: the right status, reason and field, and nothing was done.

The service of these tests has no Docker Engine to speak to.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
from tests.integration import wire
from tests.integration.bad_requests import BAD_REQUESTS, EVERY_WORKSPACE_RPC, HERE, MISSING
from tests.integration.wire import Refusal, Stub, argv, connected, host_file, host_files, refused, shell
from tests.support import proc
from tests.support.eventually import eventually
from tests.support.service import ServedProcess

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
SERVICE = "/agentic_isolation.v1.WorkspaceService"
SOCKET = "no-engine-listens-here.sock"


class Stage:
    """A service whose state directory shows everything that it makes, and a workspace in it."""

    def __init__(self, service: ServedProcess, state: Path, workspace: pb.Workspace) -> None:
        self.service = service
        self.state = state
        self.workspace = workspace

    async def holdings(self, stub: Stub) -> dict[str, object]:
        """What there is, from inside and from outside. Warm shims of a guest come and go as they like."""
        listed = await stub.ListWorkspaces(pb.ListWorkspacesRequest())
        running = [process for process in proc.descendants(self.service.pid) if "shim" not in process.arguments]
        files = [path for path in self.state.rglob("*") if not path.name.endswith(".log")]
        return {
            "workspaces": [workspace.workspace_id for workspace in listed.workspaces],
            "leases": [str(workspace.lease_expire_time) for workspace in listed.workspaces],
            "files": sorted(map(str, files)),
            "processes": sorted(process.pid for process in running),
        }


@pytest.fixture(scope="module")
def stage(private_temporary_directory: Path, own_interpreter_first: None) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="t-") as directory:
        engine = f"unix://{directory}/{SOCKET}"
        options = ("--address", f"unix:{directory}/grpc.sock", "--state-dir", f"{directory}/state")
        with ServedProcess(*options, "--log-level", "warning", environment={"DOCKER_HOST": engine}) as service:
            before = len(service.log)  # it has told that there is no engine
            with grpc.insecure_channel(service.target) as channel:
                calls = pb_grpc.WorkspaceServiceStub(channel)
                request = pb.CreateWorkspaceRequest(provider="local", lease_duration=wire.seconds(600))
                workspace = calls.CreateWorkspace(request).workspace
                yield Stage(service, Path(directory) / "state", workspace)
                # A service with a state directory leaves it to the next one.
                calls.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id))
            assert not service.log[before:], "the service has complained"


@pytest.fixture
def ground(warm: None, stage: Stage) -> None:
    pass


@pytest.fixture
async def stub(stage: Stage) -> AsyncIterator[Stub]:
    async with connected(stage.service.target) as stub:
        yield stub


def aimed(request: Any, workspace_id: str) -> Any:
    """Returns the request with the workspace's id where the table says HERE."""
    copy = type(request)()
    copy.CopyFrom(request)
    inner = {"WriteFileRequest": "header", "WriteArchiveRequest": "header", "AttachRequest": "open"}
    named = getattr(copy, inner.get(type(copy).__name__, ""), copy)
    if getattr(named, "workspace_id", "") == HERE:
        named.workspace_id = workspace_id
    return copy


@pytest.mark.parametrize("group", BAD_REQUESTS)
async def test_bad_requests_are_refused(stub: Stub, stage: Stage, group: str) -> None:
    before = await stage.holdings(stub)
    for bad in BAD_REQUESTS[group]:
        try:
            with refused(bad.code, bad.reason, bad.field) as caught:
                await wire.call(stub, aimed(bad.request, stage.workspace.workspace_id))
            assert all(word in caught.message for word in bad.words), caught.message
            assert await stage.holdings(stub) == before, "something was done"
        except BaseException as error:
            error.add_note(f"the request is {bad.name!r}")
            raise


@pytest.mark.parametrize(
    ("workspace_id", "code", "reason", "field"),
    [
        (MISSING, NOT_FOUND, "WORKSPACE_NOT_FOUND", None),
        ("../" + MISSING, NOT_FOUND, "WORKSPACE_NOT_FOUND", None),
        ("", INVALID, "INVALID_ARGUMENT", "workspace_id"),
    ],
    ids=["unknown", "malformed", "not named"],
)
async def test_workspace_that_is_not_there(
    stub: Stub, stage: Stage, workspace_id: str, code: grpc.StatusCode, reason: str, field: str | None
) -> None:
    before = await stage.holdings(stub)
    for request in EVERY_WORKSPACE_RPC:
        try:
            with refused(code, reason, field) as caught:
                await wire.call(stub, aimed(request, workspace_id))
            assert workspace_id in caught.message
        except BaseException as error:
            error.add_note(f"the request is {type(request).__name__}")
            raise
    assert await stage.holdings(stub) == before


async def test_what_grpc_itself_refuses(stub: Stub, stage: Stage) -> None:
    """It has a code and no details, as the contract says; the service is not asked."""
    large = shell("touch was-here", stdin=bytes(4 << 20))
    execute = pb.ExecuteRequest(workspace_id=stage.workspace.workspace_id, command=large)
    async with grpc.aio.insecure_channel(stage.service.target) as channel:
        method: Any = channel.unary_unary(f"{SERVICE}/NoSuchMethod")
        for call, code in (
            (method(b""), grpc.StatusCode.UNIMPLEMENTED),
            (stub.Execute(execute), grpc.StatusCode.RESOURCE_EXHAUSTED),
            (
                stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=(("x-note", "x" * (64 << 10)),)),
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            assert raised.value.code() is code
            assert "grpc-status-details-bin" not in dict(raised.value.trailing_metadata() or ())
    assert not host_file(stage.workspace, "was-here").exists()


@pytest.mark.parametrize(
    "junk", [b"\xff\xff\xff", b"\x0a\x04\xff\xfe\xfd\xfc", b"\x0a\x7f"], ids=["tag", "utf-8", "cut"]
)
async def test_bytes_that_are_no_message(stage: Stage, junk: bytes) -> None:
    def messages(*later: bytes) -> Iterator[bytes]:
        yield from (*later, junk)

    header = pb.WriteFileHeader(workspace_id=stage.workspace.workspace_id, path="was-here")
    before = len(stage.service.log)
    async with grpc.aio.insecure_channel(stage.service.target) as channel:
        raw: Any = channel
        with refused(INVALID, "INVALID_ARGUMENT"):
            await raw.unary_unary(f"{SERVICE}/Execute")(junk)
        with refused(INVALID, "INVALID_ARGUMENT"):
            await raw.unary_stream(f"{SERVICE}/Stream")(junk).read()
        with refused(INVALID, "INVALID_ARGUMENT"):
            await raw.stream_stream(f"{SERVICE}/Attach")(messages()).read()
        for begun in ([], [pb.WriteFileRequest(header=header).SerializeToString()]):
            with refused(INVALID, "INVALID_ARGUMENT"):
                await raw.stream_unary(f"{SERVICE}/WriteFile")(messages(*begun))
    assert not host_file(stage.workspace, "was-here").exists()
    assert stage.service.log[before:] == ""


@pytest.mark.parametrize("method", list(pb.DESCRIPTOR.services_by_name["WorkspaceService"].methods_by_name))
async def test_call_that_ends_without_a_message(stage: Stage, method: str) -> None:
    async with grpc.aio.insecure_channel(stage.service.target) as channel:
        call: Any = channel.stream_stream(f"{SERVICE}/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(iter(()), timeout=10).read()
        assert raised.value.code() is INVALID


async def test_docker_without_an_engine(stub: Stub, stage: Stage) -> None:
    """The error names the socket that was tried; there is never a silent fall-back to no isolation."""
    before = await stage.holdings(stub)
    with refused(grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE") as caught:
        await stub.CreateWorkspace(pb.CreateWorkspaceRequest(provider="docker"))
    assert SOCKET in caught.message
    assert await stage.holdings(stub) == before


async def test_server_info_says_that_there_is_no_engine(stub: Stub) -> None:
    info = await stub.GetServerInfo(pb.GetServerInfoRequest())
    providers = {provider.name: provider for provider in info.providers}
    assert not providers["docker"].available
    assert SOCKET in providers["docker"].unavailable_reason
    assert providers["local"].available
    assert not providers["local"].unavailable_reason


async def test_two_targets_in_one_message(stub: Stub, workspace: pb.Workspace, stage: Stage) -> None:
    """Of the members of a oneof the last on the wire counts; nothing is done about the others."""
    start = pb.ProcessStart(command=shell("touch was-here"))
    both = pb.StreamRequest(workspace_id=workspace.workspace_id, start=start).SerializeToString()
    both += pb.StreamRequest(resume=pb.ProcessResume(process_id="p-none")).SerializeToString()
    async with grpc.aio.insecure_channel(stage.service.target) as channel:
        raw: Any = channel.unary_stream(f"{SERVICE}/Stream")
        with refused(NOT_FOUND, "PROCESS_NOT_FOUND"):
            _ = [event async for event in raw(both)]
    assert not host_file(workspace, "was-here").exists()


async def test_upload_in_the_wrong_order(stub: Stub, workspace: pb.Workspace) -> None:
    """One that lacks its end is not complete: whoever sent it may have been cut off."""
    header = pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id=workspace.workspace_id, path="file"))
    data = pb.WriteFileRequest(data=b"content")
    for messages, field in (
        ([], "header"),
        ([data, wire.END], "header"),
        ([header, data], "content"),
        ([header, data, header, wire.END], "content"),
        ([header, pb.WriteFileRequest(), wire.END], "content"),
    ):
        with refused(INVALID, "INVALID_ARGUMENT", field):
            await stub.WriteFile(iter(messages))
    await eventually(lambda: not host_files(workspace), "nothing of them is left")


async def test_command_that_cannot_start(stub: Stub, workspace: pb.Workspace, stage: Stage) -> None:
    host_file(workspace, "notes").write_text("no program")
    host_file(workspace, "directory").mkdir()
    before = await stage.holdings(stub)
    for command, code, reason in (
        (argv("no-such-program-anywhere"), NOT_FOUND, "PROGRAM_NOT_FOUND"),
        (argv("./missing"), NOT_FOUND, "PROGRAM_NOT_FOUND"),
        (shell("true", working_dir="/workspace/missing"), NOT_FOUND, "WORKING_DIR_NOT_FOUND"),
        (argv("./notes"), PRECONDITION, "PROGRAM_NOT_EXECUTABLE"),
        (argv("./directory"), PRECONDITION, "PROGRAM_NOT_EXECUTABLE"),
    ):
        start = pb.ProcessStart(command=command)
        with refused(code, reason):
            await stub.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=command))
        with refused(code, reason):
            await wire.call(stub, pb.StreamRequest(workspace_id=workspace.workspace_id, start=start))
    assert await stage.holdings(stub) == before


async def test_file_that_cannot_be_had(stub: Stub, workspace: pb.Workspace) -> None:
    host_file(workspace, "directory/inner").mkdir(parents=True)
    host_file(workspace, "file").write_text("content")
    name = workspace.workspace_id
    for request, code, reason in (
        (pb.ReadFileRequest(workspace_id=name, path="lost"), NOT_FOUND, "FILE_NOT_FOUND"),
        (pb.ReadFileRequest(workspace_id=name, path="directory"), PRECONDITION, "IS_A_DIRECTORY"),
        (pb.StatFileRequest(workspace_id=name, path="file/inner"), PRECONDITION, "NOT_A_DIRECTORY"),
        (pb.ListDirectoryRequest(workspace_id=name, path="file"), PRECONDITION, "NOT_A_DIRECTORY"),
        (pb.MakeDirectoryRequest(workspace_id=name, path="file"), grpc.StatusCode.ALREADY_EXISTS, "FILE_EXISTS"),
        (pb.MakeDirectoryRequest(workspace_id=name, path="a/b"), NOT_FOUND, "FILE_NOT_FOUND"),
        (pb.RemoveFileRequest(workspace_id=name, path="lost"), NOT_FOUND, "FILE_NOT_FOUND"),
        (pb.RemoveFileRequest(workspace_id=name, path="directory"), PRECONDITION, "DIRECTORY_NOT_EMPTY"),
        (
            pb.MoveFileRequest(workspace_id=name, source_path="lost", destination_path="new"),
            NOT_FOUND,
            "FILE_NOT_FOUND",
        ),
        (
            pb.MoveFileRequest(workspace_id=name, source_path="file", destination_path="directory/inner"),
            grpc.StatusCode.ALREADY_EXISTS,
            "FILE_EXISTS",
        ),
        (
            pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id=name, path="directory")),
            PRECONDITION,
            "IS_A_DIRECTORY",
        ),
    ):
        with refused(code, reason):
            await wire.call(stub, request)
    assert host_files(workspace) == ["directory", "directory/inner", "file"]


async def test_resuming_at_the_largest_offset(stub: Stub, workspace: pb.Workspace) -> None:
    start = pb.ProcessStart(command=argv("true"))
    request = pb.StreamRequest(workspace_id=workspace.workspace_id, start=start, linger=wire.seconds(60))
    async with wire.EventReader(stub, request) as events:
        await events.to_end()
    resume = pb.ProcessResume(process_id=events.process_id, offset=2**64 - 1)
    with refused(grpc.StatusCode.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE"):
        await wire.call(stub, pb.StreamRequest(workspace_id=workspace.workspace_id, resume=resume))


async def test_resuming_an_executed_command_at_the_largest_offset(stub: Stub, workspace: pb.Workspace) -> None:
    """What is kept of its output is not known before its end, so that the guest goes by any offset until then."""
    request = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=argv("echo", "hi"), request_id="one")
    [executed] = await wire.call(stub, request)
    resume = pb.ProcessResume(process_id=executed.process_id, offset=2**64 - 1)
    with refused(grpc.StatusCode.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE"):
        await wire.call(stub, pb.StreamRequest(workspace_id=workspace.workspace_id, resume=resume))
    assert await wire.call(stub, request) == [executed]


async def test_reading_a_file_at_the_largest_offset(stub: Stub, workspace: pb.Workspace) -> None:
    """The contract says: past the end there is no data. The guest's numbers, and the kernel's, end earlier."""
    host_file(workspace, "file").write_text("content")
    request = pb.ReadFileRequest(workspace_id=workspace.workspace_id, path="file", length_bytes=2**64 - 1)
    assert b"".join(answer.data for answer in await wire.call(stub, request)) == b"content"
    request.offset_bytes = 2**64 - 1
    assert b"".join(answer.data for answer in await wire.call(stub, request)) == b""


async def test_more_arguments_than_a_guest_is_told(stub: Stub, workspace: pb.Workspace) -> None:
    """Empty ones take few bytes of what a command may have, and more on their way."""
    request = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=argv("true", *[""] * 400_000))
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "command"):
        await wire.call(stub, request)


async def test_longest_timeout(stub: Stub, workspace: pb.Workspace) -> None:
    """Thirty years are more than some clocks can count in nanoseconds."""
    command = shell("sleep 0.2; echo fine", timeout=wire.seconds(1e9))
    result = await stub.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=command))
    assert result.termination.cause == pb.TERMINATION_CAUSE_EXITED
    assert result.stdout.head == b"fine\n"


async def test_message_that_is_too_large(stub: Stub, workspace: pb.Workspace) -> None:
    """gRPC itself refuses it, without an ErrorInfo; the connection goes on."""
    request = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=argv("cat", stdin=bytes(5 << 20)))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Execute(request)
    assert Refusal.of(raised.value) == Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, None)
    await stub.GetServerInfo(pb.GetServerInfoRequest())
