"""An attachment to a process over however many calls it takes: no byte in or out is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator

from agentic_isolation import _convert_interaction as convert
from agentic_isolation._connection import Connection
from agentic_isolation._loops import same_loop
from agentic_isolation._outbox import Outbox
from agentic_isolation._retry import PASSING
from agentic_isolation.errors import (
    ClosedError,
    InvalidArgumentError,
    IsolationError,
    NoTerminalError,
    UnavailableError,
)
from agentic_isolation.interaction import AttachEvent, InputProgress, TerminalSize
from agentic_isolation.runs import Exited, Gap, Output, Started, Termination
from agentic_isolation.v1 import workspace_pb2 as pb

MAX_UNREAD = 256 << 10
"""Bytes of output that wait to be read here; then nothing more is taken from the service."""
MAX_UNTAKEN = 256 << 10
"""Bytes of input that are kept, to be sent again, until the process has taken them."""
IDLE_READER = 10.0
"""Seconds for which a reader may take nothing, though as much waits as may, until it does not count as one any more."""

Event = Output | Gap | Exited


class Attachment:
    """Reads and writes one process. A call that ends with what is PASSING is followed by another one.

    Args:
        connection: To its service.
        opening: What the first call is opened with.
        on_end: Is told when nothing goes in or out any more.
    """

    def __init__(
        self, connection: Connection, opening: pb.AttachOpen, on_end: Callable[[Attachment], object] = lambda _: None
    ) -> None:
        self.process_id = opening.resume.process_id
        self.offset = opening.resume.offset
        """Place of the next byte that `next` gives."""
        self.termination: Termination | None = None
        """How the process ended; None while that has not been heard."""
        self._connection = connection
        self._opening = opening
        self._current: pb.AttachOpen | None = None
        """What the call that is under way was opened with."""
        self._writes = not opening.read_only
        self._may_have_terminal = opening.WhichOneof("target") != "start" or opening.HasField("terminal")
        self._on_end = on_end
        self._patience = connection.patience()
        self._changed = asyncio.Event()
        self._events: deque[Event] = deque()
        self._unread = 0
        self._readers = 0
        """Who waits for an event, or is to take the next ones."""
        self._steps = 0
        """How many events readers have taken."""
        self._latest_reader: asyncio.Task[object] | None = None
        self._received = self.offset
        self._outbox = Outbox()
        self._size: TerminalSize | None = None
        self._started = False
        # A writer that is in the way later is then this one, of the call before.
        self._may_take_input = opening.take_input or opening.WhichOneof("target") == "start"
        self._error: Exception | None = None
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def _is_open(self) -> bool:
        return self._outbox.is_placed() if self._writes else self._started

    @property
    def _over(self) -> bool:
        return self._closed or self._error is not None or self.termination is not None

    async def open(self) -> None:
        """Begins, and returns when the process runs, and its input can be written to where it is to be.

        Raises:
            InputTakenError: Another attachment is the writer.
            IsolationError: It could not start, or there is none of that id.
        """
        self._loop = same_loop(None)
        self._task = asyncio.create_task(self._run(), name="process-attachment")
        await self._until(lambda: self._is_open or self._over)
        self._raise_failure()

    async def next(self) -> Event | None:
        """Waits for the next event; None after Exited.

        Raises:
            ClosedError: It was closed before the process ended.
            IsolationError: Why nothing more can be read.
        """
        self.check_loop()
        self._latest_reader = asyncio.current_task()
        with self.reading():
            await self._until(lambda: bool(self._events) or self._over)
        if not self._events:
            if self.termination is None:
                self._raise_failure()
            return None
        self._steps += 1
        return self._next_event()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Says that somebody is to take the events that come meanwhile."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            self._notify()

    async def wait(self) -> Termination:
        """Waits until the process has ended. Events that nobody is to take, or nobody takes any more, are dropped.

        Raises:
            ClosedError, IsolationError: As `next`.
        """
        self.check_loop()
        await asyncio.sleep(0)  # who was told to read just before has begun then
        # Whoever waits here does not read meanwhile, though it may have left an iteration unfinished.
        idle_since = self._steps if self._latest_reader is asyncio.current_task() else -1
        while self._events or not self._over:
            steps = self._steps
            if not self._readers or idle_since == steps:
                if self._events:
                    self._next_event()
                else:
                    await self._changed.wait()
            elif self._over:
                break
            elif self._unread < MAX_UNREAD:
                await self._changed.wait()
            else:
                try:
                    async with asyncio.timeout(IDLE_READER):
                        await self._until(lambda: self._over or not self._readers or self._steps != steps)  # noqa: B023
                except TimeoutError:
                    idle_since = steps
        if self.termination is None:
            self._raise_failure()
            raise AssertionError("what is over has ended, failed or was closed")
        return self.termination

    async def write(self, data: bytes) -> None:
        """Sends input as fast as the process takes it.

        Raises:
            ClosedError: The input has ended, or the attachment was closed.
            IsolationError: Why nothing more can be written.
        """
        self.check_loop()
        view = memoryview(data)
        while True:
            self._refuse_ended()
            room = max(0, MAX_UNTAKEN - len(self._outbox))
            self._outbox.put(bytes(view[:room]))
            view = view[room:]
            self._notify()
            if not view:
                return
            await self._until(lambda: len(self._outbox) < MAX_UNTAKEN or self._over or self._outbox.ended)

    def end_input(self) -> None:
        """Ends the input after what was written. May be called twice."""
        self.check_loop()
        self._refuse_reader()
        self._raise_failure()
        self._outbox.end_wanted = True
        self._notify()

    def resize(self, size: TerminalSize) -> None:
        """Gives the terminal another size.

        Raises:
            InvalidArgumentError: No terminal can have it.
            NoTerminalError: The process was started here, without one.
        """
        self.check_loop()
        # The service ends an attachment that asks for what cannot be.
        convert.size_to_pb(size, "resize")
        if not self._may_have_terminal:
            raise NoTerminalError("the process has no terminal; start it with one", field="resize")
        self._raise_failure()
        self._size = size
        self._notify()

    def check_loop(self) -> None:
        """Raises RuntimeError on another event loop than it was opened on, where nothing of it could be waited for."""
        same_loop(self._loop)

    async def aclose(self) -> None:
        """Lets go of the process. May be called twice."""
        self.check_loop()
        self._closed = True
        self._notify()
        # What is kept here of a call keeps its connection: a cancelled task does, and the traceback of an error.
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.wait([task])
            self._task = None
        if isinstance(self._error, IsolationError):
            self._error = _afresh(self._error)

    async def _run(self) -> None:
        try:
            while self.termination is None:
                try:
                    await self._call()
                except PASSING as error:
                    await self._patience.wait(error)
        except Exception as error:  # noqa: BLE001  whoever waits here would wait for ever
            self._error = error
        finally:
            self._notify()
            self._on_end(self)

    async def _call(self) -> None:
        self._outbox.begin_call()
        opening = self._current = self._opening_now()
        responses = self._connection.stream(self._connection.stub.Attach, self._requests(opening), head=opening)
        try:
            async with contextlib.aclosing(responses):
                async for response in responses:
                    self._patience.renew()
                    await self._take(convert.attach_event_from_pb(response))
                    if self.termination is not None:
                        return
            raise UnavailableError("the attachment ended before the process did")
        finally:
            self._current = None  # whoever takes the requests of a call may go on when that has ended
            self._notify()

    def _opening_now(self) -> pb.AttachOpen:
        if not self._started:
            return self._opening
        return pb.AttachOpen(
            workspace_id=self._opening.workspace_id,
            resume=pb.ProcessResume(
                process_id=self.process_id, offset=self._received, observe=self._opening.resume.observe
            ),
            read_only=not self._writes,
            take_input=self._writes and self._may_take_input,
        )

    async def _take(self, event: AttachEvent | None) -> None:
        match event:
            case Started(process_id):
                self.process_id, self._started = process_id, True
            case InputProgress(offset, ended):
                self._may_take_input = True
                self._outbox.note(offset, ended=ended)
            case Output() | Gap() | Exited():
                self._events.append(event)
                self._unread += _size_of(event)
                self._received += _length_of(event)
                if isinstance(event, Exited):
                    self.termination = event.termination
        self._notify()
        # Nobody reads before it is open, and what opens it may come after much output.
        await self._until(lambda: self._unread < MAX_UNREAD or not self._is_open)

    async def _requests(self, opening: pb.AttachOpen) -> AsyncGenerator[pb.AttachRequest, None]:
        yield pb.AttachRequest(open=opening)
        size: TerminalSize | None = None
        await self._until(lambda: self._started or self._current is not opening)
        while self._current is opening:
            changed = self._changed
            if self._size is not None and self._size is not size:
                size = self._size
                yield pb.AttachRequest(resize=convert.size_to_pb(size, "resize"))
            elif (piece := self._outbox.take()) is not None:
                end = pb.AttachRequest(end_of_input=pb.EndOfInput())
                yield pb.AttachRequest(stdin=piece) if piece else end
            else:
                await changed.wait()

    def _next_event(self) -> Event:
        event = self._events.popleft()
        self._unread -= _size_of(event)
        self.offset += _length_of(event)
        self._notify()
        return event

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _refuse_reader(self) -> None:
        if not self._writes:
            raise InvalidArgumentError("it only reads; attach without this to write", field="read_only")

    def _refuse_ended(self) -> None:
        self._refuse_reader()
        self._raise_failure()
        if self._outbox.ended or self._outbox.end_wanted or self.termination is not None:
            raise ClosedError("the standard input of the process has ended")

    def _raise_failure(self) -> None:
        """Raises why there is nothing more; the end of the process is no failure."""
        if isinstance(self._error, IsolationError):
            raise _afresh(self._error) from self._error
        if self._error is not None:
            raise self._error
        if self._closed and self.termination is None:
            raise ClosedError("the process was detached or left; attach to it anew")


def _afresh(error: IsolationError) -> IsolationError:
    """Returns an error that says the same and has been raised nowhere."""
    return copy.copy(error)


def _size_of(event: Event) -> int:
    return len(event.data) if isinstance(event, Output) else 0


def _length_of(event: Event) -> int:
    """Returns how far an event moves on in the process's output."""
    return event.lost_bytes if isinstance(event, Gap) else _size_of(event)
