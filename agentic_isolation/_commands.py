"""Commands of one workspace over a connection: each runs once, however often the connection breaks."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

from agentic_isolation import _convert as convert
from agentic_isolation import _convert_interaction as interaction
from agentic_isolation import _convert_runs as run_convert
from agentic_isolation._attachment import Attachment
from agentic_isolation._cleanup import finish
from agentic_isolation._connection import CALL_TIMEOUT, Connection
from agentic_isolation._resume import ResumedEvents
from agentic_isolation._retry import KILL_TIMEOUT, give_up, linger_of, persevere, run_once
from agentic_isolation._wire import check_text, check_type, check_unsigned
from agentic_isolation.errors import IsolationError
from agentic_isolation.interaction import ProcessInfo, TerminalSize
from agentic_isolation.process import Process
from agentic_isolation.runs import Command, ExecuteResult, StreamEvent, Termination
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
        self._attachments: set[Attachment] = set()

    async def execute(self, command: Command, output_limit: int | None) -> ExecuteResult:
        """Runs a command to its end; as AgenticWorkspace.execute."""
        request_id = self._begin()
        try:
            request = pb.ExecuteRequest(
                workspace_id=self._workspace_id,
                command=run_convert.command_to_pb(command),
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
            run_convert.termination_from_pb(response.termination),
            run_convert.captured_from_pb(response.stdout),
            run_convert.captured_from_pb(response.stderr),
        )

    def events(self, message: pb.Command, lines: bool) -> ResumedEvents:
        """Runs a command and gives its events."""
        connection, workspace_id = self._connection, self._workspace_id
        request_id = self._begin()

        def start() -> AsyncGenerator[StreamEvent, None]:
            request = pb.StreamRequest(workspace_id=workspace_id, linger=self._linger, request_id=request_id)
            request.start.CopyFrom(pb.ProcessStart(command=message, line_mode=lines))
            return self._read(request)

        def resume(process_id: str, offset: int) -> AsyncGenerator[StreamEvent, None]:
            place = pb.ProcessResume(process_id=process_id, offset=offset)
            return self._read(pb.StreamRequest(workspace_id=workspace_id, resume=place))

        on_end = partial(self._running.discard, request_id)
        return ResumedEvents(start, resume, connection.patience(), self._killer(request_id), on_end)

    async def start(
        self, command: Command, *, terminal: TerminalSize | None, detached: bool, lines: bool = False
    ) -> Process:
        """Starts a command that is interacted with; as AgenticWorkspace.start."""
        request_id = uuid.uuid4().hex
        opening = pb.AttachOpen(
            workspace_id=self._workspace_id,
            start=pb.ProcessStart(
                command=run_convert.command_to_pb(command),
                line_mode=lines,
                detached=check_type(detached, "detached", bool),
            ),
            terminal=None if terminal is None else interaction.size_to_pb(terminal, "terminal"),
            linger=self._linger,
            request_id=request_id,
        )
        if not detached:
            self._running.add(request_id)

        def on_end(attachment: Attachment) -> None:
            self._attachments.discard(attachment)
            self._running.discard(request_id)

        attachment = Attachment(self._connection, opening, on_end)
        self._attachments.add(attachment)
        try:
            await attachment.open()
        except BaseException as error:
            await finish(self._leave(attachment, "" if isinstance(error, IsolationError) else request_id))
            raise
        return Process(attachment, self.signal, self._kill_process, owned=not detached)

    async def attach(
        self, process_id: str, offset: int, *, read_only: bool, take_input: bool, observe: bool
    ) -> Process:
        """Attaches to a process; as AgenticWorkspace.attach."""
        place = pb.ProcessResume(
            process_id=check_text(process_id, "process_id"),
            offset=check_unsigned(offset, "offset", bits=64) or 0,
            observe=check_type(observe, "observe", bool),
        )
        opening = pb.AttachOpen(
            workspace_id=self._workspace_id,
            resume=place,
            read_only=check_type(read_only, "read_only", bool),
            take_input=check_type(take_input, "take_input", bool),
        )
        attachment = Attachment(self._connection, opening, self._attachments.discard)
        self._attachments.add(attachment)
        try:
            await attachment.open()
        except BaseException:
            await finish(attachment.aclose())
            raise
        return Process(attachment, self.signal, self._kill_process, owned=False)

    async def list(self) -> list[ProcessInfo]:
        """Returns the processes of the workspace; as AgenticWorkspace.processes."""
        request = pb.ListProcessesRequest(workspace_id=self._workspace_id)
        response = await self._connection.call(self._connection.stub.ListProcesses, request)
        return [interaction.process_from_pb(process) for process in response.processes]

    async def wait(self, process_id: str) -> Termination:
        """Waits for the end of a process; as AgenticWorkspace.wait."""
        connection, patience = self._connection, self._connection.patience()
        request = pb.WaitProcessRequest(
            workspace_id=self._workspace_id, process_id=check_text(process_id, "process_id")
        )
        response = await persevere(lambda: connection.attempt(connection.stub.WaitProcess, request, patience), patience)
        return run_convert.termination_from_pb(response.termination)

    async def signal(self, process_id: str, number: int, *, tree: bool = False) -> None:
        """Sends a signal to a process; as AgenticWorkspace.signal."""
        request = pb.SignalProcessRequest(
            workspace_id=self._workspace_id,
            process_id=check_text(process_id, "process_id"),
            signal=check_unsigned(number, "signal", bits=31) or 0,
            tree=check_type(tree, "tree", bool),
            foreground=not tree,
        )
        kills = number == signal.SIGKILL and tree
        call = self._connection.call if kills else self._connection.once  # another signal might be sent twice
        await call(self._connection.stub.SignalProcess, request)

    async def aclose(self) -> None:
        """Lets go of all processes that are attached to."""
        await asyncio.gather(*(attachment.aclose() for attachment in list(self._attachments)))

    async def kill_all(self) -> None:
        """Kills what still runs, as far as the service can be reached."""
        await asyncio.gather(*(give_up(partial(self._kill, request_id)) for request_id in self._running))

    def _begin(self) -> str:
        request_id = uuid.uuid4().hex
        self._running.add(request_id)
        return request_id

    def _killer(self, request_id: str) -> Callable[[], Awaitable[None]] | None:
        return partial(self._kill, request_id) if self._connection.retry_timeout else None

    async def _leave(self, attachment: Attachment, request_id: str) -> None:
        """Lets go of a process, and kills what the request has started, or forbids it to start; empty: no request."""
        await attachment.aclose()
        if request_id:
            await give_up(partial(self._kill, request_id))

    async def _read(self, request: pb.StreamRequest) -> AsyncGenerator[StreamEvent, None]:
        call = self._connection.stream(self._connection.stub.Stream, request)
        async with contextlib.aclosing(call) as responses:
            async for response in responses:
                if (event := run_convert.event_from_pb(response)) is not None:
                    yield event

    async def _kill_process(self, process_id: str) -> None:
        await self.signal(process_id, signal.SIGKILL, tree=True)

    async def _kill(self, request_id: str) -> None:
        request = pb.SignalProcessRequest(
            workspace_id=self._workspace_id, request_id=request_id, signal=signal.SIGKILL, tree=True
        )
        await self._connection.call(self._connection.stub.SignalProcess, request, timeout=KILL_TIMEOUT)
