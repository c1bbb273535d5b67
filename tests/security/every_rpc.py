"""One request of each RPC of the service, what comes of it, and of each kind of caller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import END, Stub, seconds, shell

HERE, MISSING = "ws-hhhhhhhhhhhhhhhhhhhh", "ws-mmmmmmmmmmmmmmmmmmmm"
"""Stand for ids; both are as long as one is."""
RPCS = [method.name for method in pb.DESCRIPTOR.services_by_name["WorkspaceService"].methods]
_EMPTY_ARCHIVE = bytes(1024)
_START = pb.ProcessStart(command=shell("true"))

WITHOUT_WORKSPACE: dict[str, list[Any]] = {
    "CreateWorkspace": [pb.CreateWorkspaceRequest(provider="local", lease_duration=seconds(60))],
    "ListWorkspaces": [pb.ListWorkspacesRequest()],
    "PullImage": [pb.PullImageRequest(provider="local")],
    "GetServerInfo": [pb.GetServerInfoRequest()],
}
"""Requests that name no workspace, by RPC."""
OF_WORKSPACE: dict[str, list[Any]] = {
    "GetWorkspace": [pb.GetWorkspaceRequest(workspace_id=HERE)],
    "RenewWorkspace": [pb.RenewWorkspaceRequest(workspace_id=HERE)],
    "Execute": [pb.ExecuteRequest(workspace_id=HERE, command=shell("touch executed"))],
    "Stream": [pb.StreamRequest(workspace_id=HERE, start=_START)],
    "Attach": [pb.AttachRequest(open=pb.AttachOpen(workspace_id=HERE, start=_START))],
    "ListProcesses": [pb.ListProcessesRequest(workspace_id=HERE)],
    "WaitProcess": [pb.WaitProcessRequest(workspace_id=HERE, process_id="p")],
    "SignalProcess": [pb.SignalProcessRequest(workspace_id=HERE, process_id="p", signal=9)],
    "WriteFile": [pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id=HERE, path="file")), END],
    "ReadFile": [pb.ReadFileRequest(workspace_id=HERE, path="file")],
    "StatFile": [pb.StatFileRequest(workspace_id=HERE, path="file")],
    "ListDirectory": [pb.ListDirectoryRequest(workspace_id=HERE)],
    "MakeDirectory": [pb.MakeDirectoryRequest(workspace_id=HERE, path="made")],
    "CopyFile": [pb.CopyFileRequest(workspace_id=HERE, source_path="file", destination_path="copy")],
    "MoveFile": [pb.MoveFileRequest(workspace_id=HERE, source_path="copy", destination_path="moved")],
    "ChangeFileMode": [pb.ChangeFileModeRequest(workspace_id=HERE, path="file", mode=0o600)],
    "WriteArchive": [
        pb.WriteArchiveRequest(header=pb.WriteArchiveHeader(workspace_id=HERE)),
        pb.WriteArchiveRequest(data=_EMPTY_ARCHIVE),
        pb.WriteArchiveRequest(end=pb.WriteArchiveEnd()),
    ],
    "ReadArchive": [pb.ReadArchiveRequest(workspace_id=HERE)],
    "WatchDirectory": [pb.WatchDirectoryRequest(workspace_id=HERE)],
    "RemoveFile": [pb.RemoveFileRequest(workspace_id=HERE, path="file")],
    "DestroyWorkspace": [pb.DestroyWorkspaceRequest(workspace_id=HERE)],
}
"""Requests that name a workspace, in an order in which all succeed; a new RPC has its own here, or above."""
SUCCEED_OTHERWISE = {
    "WaitProcess": ("NOT_FOUND", "PROCESS_NOT_FOUND"),
    "SignalProcess": ("NOT_FOUND", "PROCESS_NOT_FOUND"),
    "PullImage": ("INVALID_ARGUMENT", "INVALID_ARGUMENT"),
}
"""What comes of requests that whoever may make them cannot have more from."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: all of it that a client is told, but for what a success holds."""

    code: str
    reason: str = ""
    message: str = ""
    details: bytes = b""
    metadata: tuple[str, ...] = ()
    """The names of all that came at the call's end."""

    def about(self, workspace_id: str) -> Outcome:
        """Returns it as if it were about MISSING in place of a workspace."""
        message = self.message.replace(workspace_id, MISSING)
        details = self.details.replace(workspace_id.encode(), MISSING.encode())
        return Outcome(self.code, self.reason, message, details, self.metadata)


def aimed(requests: list[Any], workspace_id: str) -> list[Any]:
    """Returns requests that name a workspace in place of HERE."""
    found = []
    for request in requests:
        data = request.SerializeToString().replace(HERE.encode(), workspace_id.encode())
        found.append(type(request).FromString(data))
    return found


async def outcome(stub: Stub, rpc: str, requests: list[Any]) -> Outcome:
    """Calls an RPC and returns what comes of it; of a stream of answers the first one says that."""
    method = pb.DESCRIPTOR.services_by_name["WorkspaceService"].methods_by_name[rpc]
    call: Any = getattr(stub, rpc)(_each(requests) if method.client_streaming else requests[0])
    try:
        if method.server_streaming:
            async for _ in call:
                break
            call.cancel()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        metadata: dict[str, Any] = dict(error.trailing_metadata() or ())
        details = metadata.get("grpc-status-details-bin", b"")
        reason = ""
        for detail in Status.FromString(details).details:
            info = ErrorInfo()
            if detail.Unpack(info):
                reason = info.reason
        return Outcome(error.code().name, reason, error.details() or "", details, tuple(sorted(metadata)))
    return Outcome("OK")


async def _each(requests: list[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request
