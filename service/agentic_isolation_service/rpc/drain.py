"""Ending a server in good order: what runs may come to its end, what comes is sent elsewhere, nothing is cut in two.

no new calls (UNAVAILABLE, to be repeated) → a grace for calls that would be lost
→ streams that their clients can resume are ended, and what is left (UNAVAILABLE, to be resumed or repeated)
→ time for those who do so at once, to be refused as well
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from types import TracebackType
from typing import Self

from agentic_isolation.errors import UnavailableError

_END_TIMEOUT = 5.0
"""Seconds that calls have to end when they are told to."""
_RETURN = 0.2
"""Seconds within which most of those that were sent elsewhere have come back: gRPC tells whoever comes while it closes
its connections nothing but CANCELLED."""


class DrainingError(UnavailableError):
    """The server drains.

    Args:
        message: What to do.
        begun: Whether the call had begun; else nothing of it was done, whatever it asked for.
    """

    def __init__(self, message: str, *, field: str | None = None, begun: bool = False) -> None:
        super().__init__(message, field=field)
        self.begun = begun


class RunningCall:
    """A call under way, while it is entered in its task. Written out, as it is on the way of every command."""

    __slots__ = ("_drain", "_task", "resumable", "to_end", "writing")

    def __init__(self, drain: Drain, *, resumable: bool) -> None:
        self._drain = drain
        self._task: asyncio.Task[object] | None = None
        self.resumable = resumable
        self.writing = False
        """Whether a message is on its way out. Nothing else can be said until it has left, not even how it ends."""
        self.to_end = False
        """Whether it is to end as soon as the message has left."""

    def __enter__(self) -> Self:
        self._task = self._drain.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is None:
            raise AssertionError("a call has begun before it ends")
        ended = self._drain.end(self._task)
        if ended and isinstance(error, asyncio.CancelledError):
            self._task.uncancel()
            raise _begun() from None

    async def write(self, sending: Awaitable[object]) -> None:
        """Sends a message.

        Raises:
            DrainingError: The server drains, and the call ends here.
        """
        self.writing = True
        try:
            await sending
        finally:
            self.writing = False
        if self.to_end:
            raise _begun()


class Drain:
    """The calls under way, and whether they are to end."""

    def __init__(self) -> None:
        self._calls: dict[asyncio.Task[object], RunningCall] = {}
        self._ended: set[asyncio.Task[object]] = set()
        self._draining = False
        self._sent_away = False
        self._changed = asyncio.Event()

    def call(self, *, resumable: bool) -> RunningCall:
        """Returns what counts a call, while it runs in the current task.

        Entered, it raises DrainingError where the server drains; so does what it surrounds, where it is ended for that.

        Args:
            resumable: Its client loses nothing when it is ended, and goes on elsewhere.
        """
        return RunningCall(self, resumable=resumable)

    def begin(self, running: RunningCall) -> asyncio.Task[object]:
        """Counts a call; returns its task.

        Raises:
            DrainingError: The server drains.
        """
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a call runs in a task")
        if self._draining:
            self._sent_away = True
            raise DrainingError("the server drains; repeat the call, it will find another one or the next")
        self._calls[task] = running
        return task

    def end(self, task: asyncio.Task[object]) -> bool:
        """Counts the end of a task's call; returns whether it was told to end."""
        del self._calls[task]
        told = task in self._ended
        self._ended.discard(task)
        self._changed.set()
        return told

    async def run(self, grace: float) -> None:
        """Refuses new calls, and returns when there are none any more. Cancelled, it goes on refusing.

        Args:
            grace: Seconds for calls that are not resumable.
        """
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._until_none(resumable=False)
        for task, running in self._calls.items():
            self._sent_away = True
            if running.writing:
                running.to_end = True
            else:
                self._ended.add(task)
                task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_TIMEOUT):
                await self._until_none(resumable=False)
                await self._until_none(resumable=True)
                if self._sent_away:
                    await asyncio.sleep(_RETURN)

    async def _until_none(self, *, resumable: bool) -> None:
        while any(running.resumable is resumable for running in self._calls.values()):
            self._changed.clear()
            await self._changed.wait()


def _begun() -> DrainingError:
    return DrainingError("the server drains; resume, or repeat the call with its request_id", begun=True)
