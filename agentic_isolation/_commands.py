"""Commands of one workspace over a connection: each runs once, however often the connection breaks."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

from agentic_isolation import _convert as convert
from agentic_isolation._connection import CALL_TIMEOUT, Connection
from agentic_isolation._resume import ResumedEvents
from agentic_isolation._retry import KILL_TIMEOUT, give_up, linger_of, run_once
from agentic_isolation._wire import check_unsigned
from agentic_isolation.models import Command, ExecuteResult, ProcessEvent
from agentic_isolation.v1 import workspace_pb2 as pb

_LONGEST_WAIT = 1e9
"""Seconds; gRPC's clock takes far longer ones for no time at all."""


class Commands:
    """Runs commands in a workspace.

    With a retry_timeout of the connection they outlive it for so long, to be joined again; without, they end with the
    call.

    Args:
        connection: To its service.
        workspace_id: Its id.
    """

    def __init__(self, connection: Connection, workspace_id: str) -> None:
        self._connection = connection
        self._workspace_id = workspace_id
        self._linger = convert.duration_to_pb(linger_of(connection.retry_timeout))
        self._running: set[str] = set()

    async def execute(self, command: Command, output_limit: int | None) -> ExecuteResult:
        """Runs a command to its end; as AgenticWorkspace.execute."""
        request_id = self._begin()
        try:
            request = pb.ExecuteRequest(
                workspace_id=self._workspace_id,
                command=convert.command_to_pb(command),
                output_limit_bytes=check_unsigned(output_limit, "output_limit_bytes", bits=32),
                linger=self._linger,
                request_id=request_id,
            )
            wait = None if command.timeout is None else min(command.timeout, _LONGEST_WAIT) + CALL_TIMEOUT
            connection, patience = self._connection, self._connection.patience(wait)
            response = await run_once(
                lambda: connection.attempt(connection.stub.Execute, request, patience),
                patience,
                self._killer(request_id),
            )
        finally:
            self._running.discard(request_id)
        return ExecuteResult.of(
            convert.termination_from_pb(response.termination),
            convert.captured_from_pb(response.stdout),
            convert.captured_from_pb(response.stderr),
        )

    def events(self, message: pb.Command, lines: bool) -> ResumedEvents:
        """Runs a command and gives its events."""
        connection, workspace_id = self._connection, self._workspace_id
        request_id = self._begin()

        def start() -> AsyncGenerator[ProcessEvent, None]:
            request = pb.StreamRequest(workspace_id=workspace_id, linger=self._linger, request_id=request_id)
            request.start.CopyFrom(pb.ProcessStart(command=message, line_mode=lines))
            return self._read(request)

        def resume(process_id: str, offset: int) -> AsyncGenerator[ProcessEvent, None]:
            place = pb.ProcessResume(process_id=process_id, offset=offset)
            return self._read(pb.StreamRequest(workspace_id=workspace_id, resume=place))

        on_end = partial(self._running.discard, request_id)
        return ResumedEvents(start, resume, connection.patience(), self._killer(request_id), on_end)

    async def kill_all(self) -> None:
        """Kills what still runs, as far as the service can be reached."""
        await asyncio.gather(*(give_up(partial(self._kill, request_id)) for request_id in self._running))

    def _begin(self) -> str:
        request_id = uuid.uuid4().hex
        self._running.add(request_id)
        return request_id

    def _killer(self, request_id: str) -> Callable[[], Awaitable[None]] | None:
        return partial(self._kill, request_id) if self._connection.retry_timeout else None

    async def _read(self, request: pb.StreamRequest) -> AsyncGenerator[ProcessEvent, None]:
        call = self._connection.stream(self._connection.stub.Stream, request)
        async with contextlib.aclosing(call) as responses:
            async for response in responses:
                if (event := convert.event_from_pb(response)) is not None:
                    yield event

    async def _kill(self, request_id: str) -> None:
        request = pb.SignalProcessRequest(
            workspace_id=self._workspace_id, request_id=request_id, signal=signal.SIGKILL, tree=True
        )
        await self._connection.call(self._connection.stub.SignalProcess, request, timeout=KILL_TIMEOUT)
