"""A command's events as one stream, over however many calls it takes to read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from agentic_isolation._cleanup import finish
from agentic_isolation._loops import same_loop
from agentic_isolation._retry import PASSING, Patience, give_up
from agentic_isolation.errors import ClosedError, DeadlineError, IsolationError, OffsetError, UnavailableError
from agentic_isolation.runs import Exited, Gap, Output, Started, StreamEvent

Call = AsyncGenerator[StreamEvent, None]


class ResumedEvents:
    """A process's events, once each. When a call ends with what is PASSING it goes on where it was.

    No asynchronous generator: asyncio closes all of those that are left at a program's end at the same time, and one
    that awaits its clean-up is then in the way of the one around it.

    Args:
        start: Starts the process, or where it was started before, reads it from its beginning.
        resume: Reads a process, by its id, from an offset.
        patience: How long unavailability is borne with; every event begins it anew.
        kill: Kills the process, or forbids it to start; None: leaving a call does.
        on_end: Is told when nothing can run any more of which anybody here takes care.
    """

    def __init__(
        self,
        start: Callable[[], Call],
        resume: Callable[[str, int], Call],
        patience: Patience,
        kill: Callable[[], Awaitable[object]] | None,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._start = start
        self._resume = resume
        self._patience = patience
        self._kill = kill
        self._on_end = on_end
        self._call: Call | None = None
        self._process_id = ""
        self._offset = 0
        self._ended = False
        self._to_kill = False
        self._waiting: asyncio.Task[object] | None = None
        """Who waits for the next event."""
        self._interrupted = False
        self._closing = False
        self._closed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def next(self) -> StreamEvent | None:
        """Waits for the next event; None after Exited.

        Raises:
            ClosedError: Somebody else has interrupted that.
            ProcessNotFoundError, OffsetError: The process, or that much of its output, was forgotten meanwhile.
            IsolationError: As the calls.
        """
        self._loop = same_loop(self._loop)
        waiting = self._waiting = asyncio.current_task()
        before = 0 if waiting is None else waiting.cancelling()
        try:
            return await self._next()
        except asyncio.CancelledError:
            # As for asyncio.timeout: one cancellation is ours, and there may be others.
            if self._interrupted and waiting is not None and waiting.uncancel() <= before:
                raise ClosedError("the stream was closed while it was read") from None
            raise
        finally:
            self._waiting = None

    def check_loop(self) -> None:
        """Raises RuntimeError on another event loop than it was first read on."""
        if self._loop is not None:
            same_loop(self._loop)

    async def interrupt(self) -> bool:
        """Ends another task's wait for the next event, which then closes this, and waits until it is closed.

        Returns whether there was one, or whether somebody has begun to close it.
        """
        if self._waiting not in (None, asyncio.current_task()):
            if not self._interrupted:
                self._interrupted = True
                self._waiting.cancel()
        elif not self._closing:
            return False
        await self._closed.wait()
        return True

    async def _next(self) -> StreamEvent | None:
        try:
            while not self._ended:
                try:
                    event = await self._read()
                except PASSING as error:
                    self._call = None
                    await self._patience.wait(error)
                else:
                    self._patience.renew()
                    if self._is_news(event):
                        return event
        except IsolationError as error:
            # Others say that nothing runs, or that nobody can be reached to end it: then it has its linger to live.
            self._to_kill = isinstance(error, OffsetError | DeadlineError)
            raise
        return None

    async def aclose(self) -> None:
        """Stops reading and kills the process unless it has ended. May be called twice."""
        self._closing = True
        to_kill, self._to_kill = self._to_kill, False
        try:
            if self._call is not None:
                await self._call.aclose()
            if to_kill and self._kill is not None:
                await finish(give_up(self._kill))
        finally:
            self._closed.set()
            self._on_end()

    async def _read(self) -> StreamEvent:
        if self._call is None:
            self._to_kill = True
            self._call = self._resume(self._process_id, self._offset) if self._process_id else self._start()
        event = await anext(self._call, None)
        if event is None:
            raise UnavailableError("the stream ended before the command did")
        return event

    def _is_news(self, event: StreamEvent) -> bool:
        """Moves on by an event; returns whether it was not seen before."""
        match event:
            case Started(process_id):
                known, self._process_id = self._process_id, process_id
                return not known
            case Output(_, offset, data):
                self._offset = offset + len(data)
            case Gap(lost_bytes):
                self._offset += lost_bytes
            case Exited():
                self._ended, self._to_kill = True, False
        return True
