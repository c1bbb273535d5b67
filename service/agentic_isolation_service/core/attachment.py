"""Attachments: a process's output coming out while input, sizes and signals go in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from agentic_isolation.errors import InvalidArgumentError, IsolationError, NoTerminalError, ProcessNotFoundError
from agentic_isolation.interaction import AttachEvent, InputProgress, TerminalSize
from agentic_isolation.runs import Exited, KeepAlive, Started
from agentic_isolation_service.core import control, validation
from agentic_isolation_service.core.processes import ProcessStream
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.channel import Channel
from agentic_isolation_service.guest.frames import FrameType, ProtocolError
from agentic_isolation_service.guest.link import LinkLostError
from agentic_isolation_service.guest.session import GuestSession


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes for standard input."""

    data: bytes


@dataclass(frozen=True, slots=True)
class EndOfInput:
    """No more standard input."""


@dataclass(frozen=True, slots=True)
class Resize:
    """The terminal has another size."""

    size: TerminalSize


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal for the foreground, or for the command where there is no terminal."""

    number: int


Action = Input | EndOfInput | Resize | Signal
"""What an attachment does to its process."""


class ProcessInput:
    """The standard input of a process, for its one writer. Left, it keeps the input open for another one.

    Args:
        session: The tie to its guest.
        channel: Of the guest's `input` operation.
    """

    def __init__(self, session: GuestSession, channel: Channel) -> None:
        self._session = session
        self._channel = channel
        self._base: int | None = None
        self._told = 0
        self._sent = 0
        self._ended = False

    @classmethod
    async def open(cls, session: GuestSession, process_id: str, *, take: bool) -> ProcessInput:
        """Opens the input of a process; `take`: in place of another writer.

        Raises:
            IsolationError: As GuestSession.open.
        """
        operation: dict[str, object] = {"op": "input", "process_id": process_id, "take": take}
        return cls(session, await session.open(operation, since=3))

    async def write(self, data: bytes) -> None:
        """Sends bytes as fast as the process takes them. What comes after its end is dropped."""
        self._sent += len(data)
        self._session.counts.traffic["input"] += len(data)
        await self._channel.send(data)

    def finish(self) -> None:
        """Ends the input, after what was written."""
        self._channel.finish()

    def abandon(self) -> None:
        """Lets go of the input."""
        self._channel.abandon()

    async def next(self) -> InputProgress | None:
        """Waits until more has been taken than was told; None after the end was told.

        Raises:
            InputTakenError: Another writer has taken its place.
            ProcessNotFoundError: There is no such process.
            IsolationError: The workspace was lost meanwhile.
        """
        try:
            return await self._next()
        except (LinkLostError, ProtocolError) as error:
            await self._session.raise_lost(error)

    async def _next(self) -> InputProgress | None:
        if self._ended:
            return None
        channel = self._channel
        if self._base is not None:
            await channel.progress(self._told)
            if channel.taken > self._told:
                if channel.taken > self._sent:
                    raise ProtocolError("the guest has taken more input than it was sent")
                self._told = channel.taken
                return InputProgress(self._base + self._told, ended=False)
        kind, _, value, _ = await channel.receive()
        if kind is FrameType.ERROR:
            raise _explained(self._session.error(value))
        if kind is not (FrameType.EVENT if self._base is None else FrameType.RESULT):
            raise ProtocolError(f"{kind.name} frame about the input of a process")
        told = payloads.input_progress(value)
        if self._base is None:
            self._base = told.offset
            return told
        self._ended = True
        return InputProgress(told.offset, ended=True)


def _explained(error: IsolationError) -> IsolationError:
    if type(error) is not InvalidArgumentError:
        return error
    return InvalidArgumentError(
        "the process was started without an input to write to; set this to read it", field="open.read_only"
    )


def _told_by(progress: asyncio.Task[InputProgress | None]) -> InputProgress | None:
    try:
        return progress.result()
    except ProcessNotFoundError:  # it has just ended, and the guest knows no more of it
        return InputProgress(0, ended=True)


class Attachment:
    """Events of one process, from Started to Exited, with InputProgress between where it writes. To be entered.

    Left, it detaches: a process whose last reader has gone dies after its linger.

    Args:
        session: The tie to its guest.
        stream: The process's output, which is the attachment's from now on.
        writes: Whether it is the writer of the process's input.
        take_input: Become the writer also where another attachment is.
    """

    def __init__(self, session: GuestSession, stream: ProcessStream, *, writes: bool, take_input: bool) -> None:
        self._session = session
        self._stream = stream
        self._writes = writes
        self._take_input = take_input
        self._process_id = ""
        self._input: ProcessInput | None = None
        self._input_begun = False
        """Whether it has been told where the input is, which comes before what the process has printed."""
        self._input_told = False
        """Whether all of the input's progress has been told."""
        self._started = asyncio.Event()
        self._ended = False
        self._output: asyncio.Task[AttachEvent | None] | None = None
        self._progress: asyncio.Task[InputProgress | None] | None = None
        self._acting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks = [task for task in (self._output, self._progress, self._acting) if task is not None]
        for task in tasks:
            task.cancel()
        if self._input is not None:
            self._input.abandon()
        await self._stream.__aexit__(kind, error, traceback)
        await asyncio.gather(*tasks, return_exceptions=True)

    def act(self, actions: AsyncIterator[Action]) -> None:
        """Begins to carry out actions, as fast as the process takes them. What fails of them is raised by `next`."""
        self._acting = asyncio.create_task(self._act(actions))

    async def next(self, keepalive: float | None = None) -> AttachEvent | None:
        """Waits for the next event; None after Exited.

        Args:
            keepalive: Seconds after which KeepAlive is returned when nothing happened.

        Raises:
            InputTakenError: Another attachment has become the writer.
            InvalidArgumentError: An action makes no sense.
            IsolationError: The process could not start, or the workspace was lost meanwhile.
        """
        if self._ended:
            return None
        while True:
            if self._output is None and (self._input is None or self._input_begun):
                self._output = asyncio.create_task(self._stream.next())
            if self._progress is None and self._input is not None and not self._input_told:
                self._progress = asyncio.create_task(self._input.next())
            waiting = [task for task in (self._output, self._progress, self._acting) if task is not None]
            await asyncio.wait(waiting, timeout=keepalive, return_when=asyncio.FIRST_COMPLETED)
            if self._acting is not None and self._acting.done():
                acting, self._acting = self._acting, None
                acting.result()
            elif self._progress is not None and self._progress.done():
                progress, self._progress = self._progress, None
                event = _told_by(progress)
                self._input_begun = True
                self._input_told = event is None or event.ended
                if event is not None:
                    return event
            elif self._output is not None and self._output.done():
                output, self._output = self._output, None
                return await self._read(output.result())
            else:
                return KeepAlive()

    async def _read(self, event: AttachEvent | None) -> AttachEvent | None:
        if isinstance(event, Started):
            self._process_id = event.process_id
            if self._writes:
                self._input = await ProcessInput.open(self._session, event.process_id, take=self._take_input)
            self._started.set()
        self._ended = isinstance(event, Exited)
        return event

    async def _act(self, actions: AsyncIterator[Action]) -> None:
        ended = False
        async for action in actions:
            await self._started.wait()
            match action:
                case Input() | EndOfInput() if self._input is None:
                    raise InvalidArgumentError("the attachment is read_only: open another one to write", field="stdin")
                case Input() | EndOfInput() if ended:
                    raise InvalidArgumentError("the standard input was ended before", field="stdin")
                case Input(data) if self._input is not None:
                    await self._input.write(data)
                case EndOfInput() if self._input is not None:
                    ended = True
                    self._input.finish()
                case Resize(size):
                    validation.check_terminal_size(size, "resize")
                    await self._resize(size)
                case Signal(number):
                    validation.check_signal(number)
                    await self._signal(number)

    async def _resize(self, size: TerminalSize) -> None:
        try:
            await control.resize(self._session, self._process_id, size)
        except NoTerminalError as error:
            raise NoTerminalError(f"{error.message}; open it with a terminal", field="resize") from error
        except ProcessNotFoundError:
            pass  # it has just ended

    async def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessNotFoundError):  # it has just ended
            await control.signal(self._session, self._process_id, number, foreground=True)
