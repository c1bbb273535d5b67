"""WorkspaceService: each RPC unpacks its request, asks the core, packs the answer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from agentic_isolation import _convert as convert
from agentic_isolation import _convert_images as images_convert
from agentic_isolation import _convert_interaction as interaction_convert
from agentic_isolation import _convert_runs as run_convert
from agentic_isolation._version import __version__
from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.core import validation
from agentic_isolation_service.core.attachment import Attachment
from agentic_isolation_service.core.commands import Commands
from agentic_isolation_service.core.processes import OutputMode, ProcessStream
from agentic_isolation_service.core.workspace import HeldWorkspace
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.rpc import attaching
from agentic_isolation_service.rpc.calls import current_caller
from agentic_isolation_service.rpc.file_methods import FileMethods
from agentic_isolation_service.rpc.keepalive import keepalive_of
from agentic_isolation_service.rpc.trace_context import trace_environment

_Context = grpc.aio.ServicerContext[Any, Any]

MESSAGE_BYTES = 4 << 20
"""Largest request message; gRPC's own default."""
_DEFAULT_PAGE = 100


def is_resumable(request: object) -> bool:
    """Returns whether the client of a call loses nothing when that is ended: its process lingers, to be read on."""
    opening = request.open if isinstance(request, pb.AttachRequest) else request
    if not isinstance(opening, pb.StreamRequest | pb.AttachOpen):
        return False
    resumes = opening.WhichOneof("target") == "resume"
    return resumes or opening.start.detached or opening.linger.ToNanoseconds() > 0


class WorkspaceServicer(FileMethods):
    """The service: its methods for workspaces and processes, with those for files."""

    def __init__(self, workspaces: Workspaces) -> None:
        super().__init__(self._workspace)
        self._workspaces = workspaces
        self._commands = Commands(self._workspace, trace=trace_environment)

    async def CreateWorkspace(
        self, request: pb.CreateWorkspaceRequest, context: _Context
    ) -> pb.CreateWorkspaceResponse:
        """Makes a workspace."""
        config = convert.config_from_pb(request)
        info = await self._workspaces.create(current_caller(), config, request.request_id)
        return pb.CreateWorkspaceResponse(workspace=convert.workspace_to_pb(info))

    async def GetWorkspace(self, request: pb.GetWorkspaceRequest, context: _Context) -> pb.GetWorkspaceResponse:
        """Describes a workspace."""
        info = await self._workspace(request.workspace_id).info_with_usage()
        return pb.GetWorkspaceResponse(workspace=convert.workspace_to_pb(info))

    async def ListWorkspaces(self, request: pb.ListWorkspacesRequest, context: _Context) -> pb.ListWorkspacesResponse:
        """Lists workspaces."""
        limit = request.page_size or _DEFAULT_PAGE
        page, token = self._workspaces.page(current_caller(), dict(request.labels), limit, request.page_token)
        workspaces = [convert.workspace_to_pb(info) for info in page]
        return pb.ListWorkspacesResponse(workspaces=workspaces, next_page_token=token)

    async def RenewWorkspace(self, request: pb.RenewWorkspaceRequest, context: _Context) -> pb.RenewWorkspaceResponse:
        """Extends a lease."""
        limited = request.HasField("lease_duration")
        seconds = convert.asked_seconds(request.lease_duration, "lease_duration") if limited else None
        expires_at = await self._workspaces.renew(current_caller(), request.workspace_id, seconds)
        return pb.RenewWorkspaceResponse(lease_expire_time=convert.timestamp_to_pb(expires_at))

    async def DestroyWorkspace(
        self, request: pb.DestroyWorkspaceRequest, context: _Context
    ) -> pb.DestroyWorkspaceResponse:
        """Removes a workspace."""
        await self._workspaces.destroy(current_caller(), request.workspace_id)
        return pb.DestroyWorkspaceResponse()

    async def Execute(self, request: pb.ExecuteRequest, context: _Context) -> pb.ExecuteResponse:
        """Runs a command to its end."""
        limited = request.HasField("output_limit_bytes")
        outcome = await self._commands.execute(
            request.workspace_id,
            run_convert.command_from_pb(request.command),
            output_limit=request.output_limit_bytes if limited else validation.DEFAULT_OUTPUT_LIMIT,
            linger=convert.asked_seconds(request.linger, "linger"),
            request_id=request.request_id,
        )
        return pb.ExecuteResponse(
            process_id=outcome.process_id,
            termination=run_convert.termination_to_pb(outcome.termination),
            stdout=run_convert.captured_to_pb(outcome.stdout),
            stderr=run_convert.captured_to_pb(outcome.stderr),
        )

    async def Stream(self, request: pb.StreamRequest, context: _Context) -> AsyncIterator[pb.StreamResponse]:
        """Runs a command, or resumes reading one, and streams its events."""
        keepalive = keepalive_of(request)
        async with await self._open_stream(request) as stream:
            while event := await stream.next(keepalive):
                yield run_convert.event_to_pb(event, pb.StreamResponse)

    async def Attach(
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: _Context
    ) -> AsyncIterator[pb.AttachResponse]:
        """Runs a command, or joins one, and passes input, sizes and signals on."""
        opening = await attaching.opening_of(request_iterator)
        keepalive = keepalive_of(opening, "open.keepalive_interval")
        async with await self._open_attachment(opening) as attachment:
            attachment.act(attaching.actions_of(request_iterator))
            while event := await attachment.next(keepalive):
                yield interaction_convert.attach_event_to_pb(event)

    async def ListProcesses(self, request: pb.ListProcessesRequest, context: _Context) -> pb.ListProcessesResponse:
        """Lists processes."""
        listed = await self._commands.list(request.workspace_id)
        return pb.ListProcessesResponse(processes=[interaction_convert.process_to_pb(process) for process in listed])

    async def WaitProcess(self, request: pb.WaitProcessRequest, context: _Context) -> pb.WaitProcessResponse:
        """Waits for a process's end."""
        termination = await self._commands.wait(request.workspace_id, request.process_id)
        return pb.WaitProcessResponse(termination=run_convert.termination_to_pb(termination))

    async def SignalProcess(self, request: pb.SignalProcessRequest, context: _Context) -> pb.SignalProcessResponse:
        """Signals a process."""
        await self._commands.signal(
            request.workspace_id,
            request.signal,
            process_id=request.process_id,
            request_id=request.request_id,
            tree=request.tree,
            foreground=request.foreground,
        )
        return pb.SignalProcessResponse()

    async def PullImage(self, request: pb.PullImageRequest, context: _Context) -> AsyncIterator[pb.PullImageResponse]:
        """Makes sure that an image is there."""
        events = self._workspaces.pull_image(current_caller(), request.provider, request.image)
        async with contextlib.aclosing(events):
            async for event in events:
                yield images_convert.pull_event_to_pb(event)

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: _Context) -> pb.GetServerInfoResponse:
        """Describes the server."""
        caller = current_caller()
        providers = await self._workspaces.describe_providers(caller)
        return pb.GetServerInfoResponse(
            version=__version__,
            providers=[convert.provider_to_pb(provider) for provider in providers],
            limits=pb.ServerLimits(
                workspaces_count=self._workspaces.max_workspaces,
                lease_duration=convert.duration_to_pb(validation.MAX_LEASE),
                output_limit_bytes=validation.MAX_OUTPUT_LIMIT,
                message_bytes=MESSAGE_BYTES,
                request_window=convert.duration_to_pb(self._workspaces.request_window),
            ),
            pools=[convert.pool_to_pb(pool) for pool in self._workspaces.describe_pools(caller)],
            replica=self._workspaces.replica_name,
        )

    def _workspace(self, workspace_id: str) -> HeldWorkspace:
        """Returns a workspace of whoever calls; raises what Workspaces.get does."""
        return self._workspaces.get(current_caller(), workspace_id)

    async def _open_stream(self, request: pb.StreamRequest) -> ProcessStream:
        match request.WhichOneof("target"):
            case "start":
                start = request.start
                return await self._commands.stream(
                    request.workspace_id,
                    run_convert.command_from_pb(start.command),
                    OutputMode(lines=start.line_mode, detached=start.detached),
                    linger=convert.asked_seconds(request.linger, "linger"),
                    request_id=request.request_id,
                )
            case "resume":
                resume = request.resume
                return await self._commands.resume(
                    request.workspace_id, resume.process_id, resume.offset, observe=resume.observe
                )
            case _:
                raise InvalidArgumentError("set start or resume", field="target")

    async def _open_attachment(self, opening: pb.AttachOpen) -> Attachment:
        if opening.read_only and opening.take_input:
            raise InvalidArgumentError(
                "who only reads writes no input; leave one of the two out", field="open.take_input"
            )
        match opening.WhichOneof("target"):
            case "start":
                start = opening.start
                return await self._commands.start_attached(
                    opening.workspace_id,
                    run_convert.command_from_pb(start.command),
                    OutputMode(lines=start.line_mode, detached=start.detached),
                    interaction_convert.size_from_pb(opening.terminal) if opening.HasField("terminal") else None,
                    read_only=opening.read_only,
                    take_input=opening.take_input,
                    linger=convert.asked_seconds(opening.linger, "linger"),
                    request_id=opening.request_id,
                )
            case "resume":
                resume = opening.resume
                return await self._commands.attach(
                    opening.workspace_id,
                    resume.process_id,
                    resume.offset,
                    read_only=opening.read_only,
                    take_input=opening.take_input,
                    observe=resume.observe,
                )
            case _:
                raise InvalidArgumentError("set start or resume", field="open.target")
