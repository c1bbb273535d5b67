"""The service as any client sees it: raw stubs, statuses as they are on the wire, streams event by event."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc

Stub: TypeAlias = "pb_grpc.WorkspaceServiceAsyncStub"  # the class is in the type stubs only
LEASE = 60
"""Seconds that a workspace outlives a test run that was killed."""
END = pb.WriteFileRequest(end=pb.WriteFileEnd())
"""The last message of an upload."""
_DETAILS = "grpc-status-details-bin"


def seconds(number: float) -> Duration:
    """Returns a Duration; also negative ones."""
    nanos = round(number * 1e9)
    sign = -1 if nanos < 0 else 1
    return Duration(seconds=sign * (abs(nanos) // 10**9), nanos=sign * (abs(nanos) % 10**9))


def shell(line: str, **fields: Any) -> pb.Command:
    """Returns the command that runs a line in a shell."""
    return pb.Command(shell=line, **fields)


def argv(*args: str, **fields: Any) -> pb.Command:
    """Returns the command that runs a program."""
    return pb.Command(argv=pb.ArgumentList(args=args), **fields)


def start(workspace: pb.Workspace, command: pb.Command | list[str], **fields: Any) -> pb.StreamRequest:
    """Returns the request that starts a command; fields are those of StreamRequest and of ProcessStart."""
    line_mode, detached = fields.pop("line_mode", False), fields.pop("detached", False)
    if isinstance(command, list):
        command = argv(*command)
    process = pb.ProcessStart(command=command, line_mode=line_mode, detached=detached)
    return pb.StreamRequest(workspace_id=workspace.workspace_id, start=process, **fields)


def resume(workspace: pb.Workspace, process_id: str, offset: int = 0) -> pb.StreamRequest:
    """Returns the request that goes on reading a process."""
    target = pb.ProcessResume(process_id=process_id, offset=offset)
    return pb.StreamRequest(workspace_id=workspace.workspace_id, resume=target)


@contextlib.asynccontextmanager
async def connected(target: str) -> AsyncIterator[Stub]:
    """Opens a channel to a service and yields the stub of it.

    Like our own client, it takes in little that it has not read: a guest keeps only so much for those who resume.
    """
    async with grpc.aio.insecure_channel(target, options=[("grpc.http2.bdp_probe", 0)]) as channel:
        stub: Stub = pb_grpc.WorkspaceServiceStub(channel)
        yield stub


@contextlib.asynccontextmanager
async def a_workspace(stub: Stub, **fields: Any) -> AsyncIterator[pb.Workspace]:
    """Makes a local workspace and destroys it on the way out, where it is still there."""
    settings: dict[str, Any] = {"provider": "local", "lease_duration": seconds(LEASE)} | fields
    request = pb.CreateWorkspaceRequest(**settings)
    workspace = (await stub.CreateWorkspace(request)).workspace
    try:
        yield workspace
    finally:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id))


def host_file(workspace: pb.Workspace, name: str) -> Path:
    """Returns where on this machine a file of a local workspace lies: the tests' way around the code under test."""
    return Path(workspace.host_path) / name


def host_files(workspace: pb.Workspace) -> list[str]:
    """Returns the paths of all that lies in a local workspace."""
    root = Path(workspace.host_path)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status as a client in any language reads it."""

    code: grpc.StatusCode
    reason: str | None
    field: str | None = None

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Refusal:
        """Reads a status, and fails where its parts disagree or an ErrorInfo is not ours."""
        reason = field = None
        metadata: Mapping[str, str | bytes] = dict(error.trailing_metadata() or ())
        if details := metadata.get(_DETAILS):
            assert isinstance(details, bytes)
            status = Status.FromString(details)
            assert status.code == error.code().value[0]
            assert status.message == error.details() != ""
            for detail in status.details:
                info, bad = ErrorInfo(), BadRequest()
                if detail.Unpack(info):
                    reason = info.reason
                    assert info.domain == "agentic-isolation"
                elif detail.Unpack(bad):
                    (violation,) = bad.field_violations
                    field = violation.field
                    assert violation.description
        return cls(error.code(), reason, field)


class Refused:
    """What `refused` caught."""

    refusal: Refusal
    message: str


@contextlib.contextmanager
def refused(code: grpc.StatusCode, reason: str, field: str | None = None) -> Any:
    """Expects a status with this reason, and with this field at fault; yields what was caught."""
    caught = Refused()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield caught
    caught.refusal, caught.message = Refusal.of(raised.value), raised.value.details() or ""
    assert caught.refusal == Refusal(code, reason, field), caught.message


async def call(stub: Stub, request: Any) -> list[Any]:
    """Calls the RPC whose request this is, whatever its shape, and returns all answers."""
    rpc = type(request).__name__.removesuffix("Request")
    method = getattr(stub, rpc)
    if rpc in ("Stream", "ReadFile", "ReadArchive", "WatchDirectory", "PullImage"):
        return [answer async for answer in method(request)]
    if rpc == "Attach":
        return [answer async for answer in method(iter([request]))]
    ends = {"WriteFile": END, "WriteArchive": pb.WriteArchiveRequest(end=pb.WriteArchiveEnd())}
    return [await method([request, ends[rpc]] if rpc in ends else request)]


class EventReader:
    """Reads one call of Stream and checks what holds for every stream.

    Events come in order: started, output and gaps whose offsets add up, exited, and nothing after it.

    Args:
        stub: The service.
        request: What to stream.
    """

    def __init__(self, stub: Stub, request: pb.StreamRequest) -> None:
        self._call: Any = stub.Stream(request)
        self.process_id = ""
        self.offset = request.resume.offset
        """Where in the process's output reading has come to."""
        self.outputs: list[pb.ProcessOutput] = []
        self.lost_bytes = 0
        self.keepalives = 0
        self.termination: pb.Termination | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Cancels the call."""
        self._call.cancel()

    async def next(self) -> str:
        """Reads one event and returns its kind."""
        event = await self._call.read()
        assert event is not grpc.aio.EOF, "the stream ended before the process"
        kind = event.WhichOneof("event")
        assert (kind == "started") == (not self.process_id), "started is the first event, and only that"
        if kind == "started":
            self.process_id = event.started.process_id
            assert self.process_id
            assert event.started.start_time.seconds > 0
        elif kind == "output":
            assert event.output.offset == self.offset
            assert 1 <= len(event.output.data) <= 128 << 10
            assert event.output.source in (pb.OUTPUT_SOURCE_STDOUT, pb.OUTPUT_SOURCE_STDERR)
            self.offset += len(event.output.data)
            self.outputs.append(event.output)
        elif kind == "gap":
            assert event.gap.lost_bytes > 0
            self.offset += event.gap.lost_bytes
            self.lost_bytes += event.gap.lost_bytes
        elif kind == "keepalive":
            self.keepalives += 1
        else:
            assert kind == "exited"
            self.termination = event.exited.termination
            assert await self._call.read() is grpc.aio.EOF, "exited is the last event"
        return str(kind)

    async def until(self, kind: str) -> None:
        """Reads to the next event of a kind."""
        while await self.next() != kind:
            pass

    async def to_end(self) -> pb.Termination:
        """Reads to the end and returns how the process ended."""
        while self.termination is None:
            await self.next()
        return self.termination

    def text(self, source: pb.OutputSource.ValueType | None = None) -> bytes:
        """What was read of one source, or of both in their order."""
        return b"".join(output.data for output in self.outputs if source in (None, output.source))
