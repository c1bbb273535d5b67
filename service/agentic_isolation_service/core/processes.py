"""Running commands through a guest: to their end, or as a stream of events."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Self

from agentic_isolation.errors import (
    InvalidArgumentError,
    IsolationError,
    PathEscapesError,
    ProcessNotFoundError,
    UnavailableError,
)
from agentic_isolation.interaction import TerminalSize
from agentic_isolation.runs import (
    CapturedOutput,
    Command,
    Exited,
    Gap,
    KeepAlive,
    Output,
    OutputSource,
    Started,
    StreamEvent,
    Termination,
)
from agentic_isolation_service.core import validation
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.channel import Channel
from agentic_isolation_service.guest.frames import FrameType, ProtocolError
from agentic_isolation_service.guest.link import LinkLostError
from agentic_isolation_service.guest.session import (
    GuestSession,
    ProcessExistsError,
    RequestConflictError,
)

_SOURCES = {FrameType.STDOUT: OutputSource.STDOUT, FrameType.STDERR: OutputSource.STDERR}
_FOR_EVER = -1
_MEMBERS_OF_VERSION_3 = {"input", "terminal", "redact"}
"""What a guest of an earlier version would pass over, and must not."""
_TO_SORTED_JSON = json.JSONEncoder(sort_keys=True).encode
_MAX_OFFSET = (1 << 63) - 1
"""Where the guest's numbers end, far beyond any output's end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command that ran to its end."""

    process_id: str
    termination: Termination
    stdout: CapturedOutput
    stderr: CapturedOutput


@dataclass(frozen=True, slots=True)
class OutputMode:
    """What happens to a process's output."""

    capture_bytes: int | None = None
    """Keep head and tail of each source, together so long; None: a log that is read while it is written."""
    lines: bool = False
    """A log whose pieces end where lines end."""
    detached: bool = False
    """A log that loses its oldest bytes when nobody reads it, of a process that no stream holds."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """How a process can be interacted with while it runs."""

    input: bool = False
    """Its standard input stays open for writers."""
    terminal: TerminalSize | None = None
    """It runs in a pseudo-terminal of this size, which is its input as well."""


class ProcessRun:
    """One command to be run, once, however often it is asked for.

    The guest keeps the account: it starts a process id only once, and remembers it when the process is over. So a
    request that comes again, through whichever process of the service, is the same process id: joined or replayed.

    Args:
        process_id: Its id in the workspace.
        operation: The guest's `run`.
        stdin: Standard input, where it has any.
    """

    def __init__(self, process_id: str, operation: dict[str, object], stdin: bytes | None) -> None:
        self.process_id = process_id
        self.stdin = stdin
        self._operation = operation

    @classmethod
    def of(
        cls,
        command: Command,
        environment: Mapping[str, str],
        output: OutputMode,
        interaction: Interaction = Interaction(),
        *,
        linger: float = 0,
        request_id: str = "",
        trace: Mapping[str, str] = MappingProxyType({}),
    ) -> ProcessRun:
        """Returns the run of a command.

        Args:
            command: What to run.
            environment: The workspace's environment, which the command's is laid over.
            output: What happens to its output.
            interaction: How it can be interacted with.
            linger: Seconds that the process lives when its last reader has gone.
            request_id: The client's id; empty: it will not ask for the same again.
            trace: Variables that tell the command which trace it belongs to, where its environment tells it of none.

        Raises:
            InvalidArgumentError: The id is malformed.
        """
        operation = _run_operation(command, environment, output, linger) | _interaction_members(interaction)
        if request_id:
            process_id = process_id_of(request_id)
            operation["request"] = _digest(operation, command.stdin)
        else:
            process_id = "p-" + secrets.token_hex(8)
        operation["process_id"] = process_id
        if trace and "TRACEPARENT" not in (own := {**environment, **command.env}):
            # Not in the digest: a repeat has a span of its own, and is the same request.
            operation["env"] = {**trace, **own}
        return cls(process_id, operation, command.stdin)

    async def open(self, session: GuestSession) -> ProcessStream:
        """Starts the process, or where it was started before, reads it from its beginning.

        Raises:
            IsolationError: As GuestSession.open.
        """
        since = 3 if _MEMBERS_OF_VERSION_3 & self._operation.keys() else 1
        return ProcessStream(session, await session.open(self._operation, since=since), self.process_id, run=self)

    async def reopen(self, session: GuestSession) -> Channel:
        """Opens a channel to the process, which the guest says exists."""
        return await session.open(_attach_operation(self.process_id, 0))


def process_id_of(request_id: str) -> str:
    """Returns the id of the process that a request starts in its workspace.

    Raises:
        InvalidArgumentError: The request's id is malformed.
    """
    validation.check_request_id(request_id)
    return "r-" + hashlib.sha256(request_id.encode()).hexdigest()[:32]


class ProcessStream:
    """Events of one process, from Started to Exited, and what was captured of its output.

    Left, it tells the guest that this reader has gone: a process whose last reader has gone dies after its linger.
    """

    def __init__(
        self,
        session: GuestSession,
        channel: Channel,
        process_id: str,
        *,
        run: ProcessRun | None = None,
    ) -> None:
        self._session = session
        self._process_id = process_id
        self._channel = channel
        self._run = run
        stdin = None if run is None else run.stdin
        self._feeder = None if stdin is None else asyncio.create_task(_feed(channel, stdin))
        session.counts.traffic["input"] += 0 if stdin is None else len(stdin)
        self._offset = 0
        self._ended = False
        self.result: dict[str, object] = {}
        """The guest's RESULT, after Exited."""

    @classmethod
    async def resume(
        cls, session: GuestSession, process_id: str, offset: int, *, observe: bool = False
    ) -> ProcessStream:
        """Continues reading a process from an offset.

        Args:
            session: The tie to its guest.
            process_id: Its id.
            offset: First byte wanted.
            observe: Neither keep the process alive nor let it go on.

        Raises:
            IsolationError: As GuestSession.open.
        """
        operation = _attach_operation(process_id, offset)
        if observe:
            return cls(session, await session.open(operation | {"observe": True}, since=3), process_id)
        return cls(session, await session.open(operation), process_id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.abandon()
        if self._feeder is not None:
            self._feeder.cancel()
            await asyncio.gather(self._feeder, return_exceptions=True)

    async def next(self, keepalive: float | None = None) -> StreamEvent | None:
        """Waits for the next event; None after Exited.

        Args:
            keepalive: Seconds after which KeepAlive is returned when nothing happened.

        Raises:
            IsolationError: It could not start, or the workspace was lost meanwhile.
        """
        if self._ended:
            return None
        try:
            event = await self._receive(keepalive)
        except TimeoutError:
            return KeepAlive()
        except (LinkLostError, ProtocolError) as error:
            await self._session.raise_lost(error)
        self._ended = isinstance(event, Exited)
        return event

    async def _receive(self, patience: float | None) -> StreamEvent:
        while True:
            if patience is None:
                kind, data, value, number = await self._channel.receive()
            else:
                async with asyncio.timeout(patience):
                    kind, data, value, number = await self._channel.receive()
            source = _SOURCES.get(kind)
            if source is not None:
                offset = self._offset
                self._advance(len(data))
                self._session.counts.traffic["output"] += len(data)
                return Output(source, offset, data)
            if kind is FrameType.EVENT:
                return self._started(value)
            if kind is FrameType.GAP:
                self._advance(number)
                return Gap(number)
            if kind is FrameType.RESULT:
                self.result = value
                return Exited(await self._session.note_end(self._process_id, payloads.termination(value)))
            if kind is FrameType.ERROR and not await self._reopened(self._session.error(value)):
                raise self._refusal(self._session.error(value))

    def _advance(self, length: int) -> None:
        self._offset += length
        if self._offset > _MAX_OFFSET:
            raise ProtocolError("more output than can be counted")

    def _started(self, value: dict[str, object]) -> Started:
        if value.get("event") == "attached":
            self._offset = payloads.member(value, "offset", int)
        if payloads.member(value, "process_id", str) != self._process_id:
            raise ProtocolError("the guest tells of another process than the one that was asked for")
        return Started(self._process_id, payloads.timestamp(value, "started_unix_ns"))

    async def _reopened(self, error: IsolationError) -> bool:
        """Returns whether the run goes on on another channel, as its process exists already."""
        if self._run is None or not isinstance(error, ProcessExistsError):
            return False
        self._channel = await self._run.reopen(self._session)
        return True

    def _refusal(self, error: IsolationError) -> IsolationError:
        """Returns what to tell the caller when the guest has answered so. Raised here, it would hold itself."""
        if isinstance(error, ProcessNotFoundError) and self._run is not None:
            return UnavailableError("another call's start of this request failed just now; repeat the request")
        if isinstance(error, RequestConflictError):
            return InvalidArgumentError(
                "this id was used for another request before; repeat that as it was, or make a new id",
                field="request_id",
            )
        if isinstance(error, PathEscapesError):
            return PathEscapesError(error.message, field="command.working_dir")
        return error


async def _feed(channel: Channel, stdin: bytes) -> None:
    await channel.send(stdin)
    channel.finish()


async def execute(session: GuestSession, run: ProcessRun) -> Outcome:
    """Runs a command to its end. When cancelled, the process tree dies after the run's linger.

    Raises:
        IsolationError: It could not start, or the workspace was lost meanwhile.
    """
    kept = {OutputSource.STDOUT: bytearray(), OutputSource.STDERR: bytearray()}
    async with await run.open(session) as stream:
        while event := await stream.next():
            if isinstance(event, Output):
                kept[event.source] += event.data
                if len(kept[event.source]) > validation.MAX_OUTPUT_LIMIT:
                    await session.raise_lost(ProtocolError("the guest sent more output than was asked for"))
            elif isinstance(event, Exited):
                try:
                    stdout = payloads.captured(stream.result, "stdout", bytes(kept[OutputSource.STDOUT]))
                    stderr = payloads.captured(stream.result, "stderr", bytes(kept[OutputSource.STDERR]))
                except ProtocolError as error:
                    await session.raise_lost(error)
                return Outcome(run.process_id, event.termination, stdout, stderr)
    raise AssertionError("a stream ends with Exited")


def _digest(operation: dict[str, object], stdin: bytes | None) -> str:
    """Returns what is equal for equal requests, in all versions of the service: members are added, never changed."""
    text = _TO_SORTED_JSON(operation).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text + b"\0" + (stdin or b"")).hexdigest()


def _run_operation(
    command: Command, environment: Mapping[str, str], output: OutputMode, linger: float
) -> dict[str, object]:
    program = command.program
    operation: dict[str, object] = {
        "op": "run",
        "argv": ["/bin/sh", "-c", program] if isinstance(program, str) else list(program),
        "env": {**environment, **command.env},
        "stdin": command.stdin is not None,
        "linger_ms": _FOR_EVER if output.detached else _milliseconds(linger),
    }
    if command.cwd is not None:
        operation["cwd"] = command.cwd
    if command.timeout is not None:
        operation["timeout_ms"] = _milliseconds(command.timeout)
    if command.kill_grace:
        operation["kill_grace_ms"] = _milliseconds(command.kill_grace)
    if command.user is not None:
        operation["user"] = command.user
    if command.redact_secrets:
        operation["redact"] = True
    if output.capture_bytes is not None:
        operation |= {"output": "capture", "capture_bytes": output.capture_bytes}
    else:
        operation |= {"output": "log", "lines": output.lines, "overflow": "drop" if output.detached else "hold"}
    return operation


def _interaction_members(interaction: Interaction) -> dict[str, object]:
    if interaction.terminal is not None:
        return {"terminal": {"columns": interaction.terminal.columns, "rows": interaction.terminal.rows}}
    return {"input": True} if interaction.input else {}


def _attach_operation(process_id: str, offset: int) -> dict[str, object]:
    return {"op": "attach", "process_id": process_id, "offset": min(offset, _MAX_OFFSET)}


def _milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)
