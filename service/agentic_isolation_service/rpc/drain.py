"""Ending a server in good order: what runs may come to its end, what comes is sent elsewhere, nothing is cut in two.

no new calls (UNAVAILABLE, to be repeated) → a grace for calls that would be lost
→ streams that their clients can resume are ended, and what is left (UNAVAILABLE, to be resumed or repeated)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from agentic_isolation.errors import UnavailableError

_END_TIMEOUT = 5.0
"""Seconds that calls have to end when they are told to."""


class Drain:
    """The calls under way, and whether they are to end."""

    def __init__(self) -> None:
        self._calls: dict[asyncio.Task[object], bool] = {}
        self._ended: set[asyncio.Task[object]] = set()
        self._draining = False
        self._changed = asyncio.Event()

    @contextlib.contextmanager
    def call(self, *, resumable: bool) -> Iterator[None]:
        """Counts a call, while it runs in the current task.

        Args:
            resumable: Its client loses nothing when it is ended, and goes on elsewhere.

        Raises:
            UnavailableError: The server drains, now or since the call has begun.
        """
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a call runs in a task")
        if self._draining:
            raise UnavailableError("the server drains; repeat the call, it will find another one or the next")
        self._calls[task] = resumable
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise UnavailableError("the server drains; resume, or repeat the call with its request_id") from None
        finally:
            del self._calls[task]
            self._ended.discard(task)
            self._changed.set()

    async def run(self, grace: float) -> None:
        """Refuses new calls, and returns when there are none any more. Cancelled, it goes on refusing.

        Args:
            grace: Seconds for calls that are not resumable.
        """
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._until_none(resumable=False)
        for task in self._calls:
            self._ended.add(task)
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_TIMEOUT):
                await self._until_none(resumable=False)
                await self._until_none(resumable=True)

    async def _until_none(self, *, resumable: bool) -> None:
        while resumable in self._calls.values():
            self._changed.clear()
            await self._changed.wait()
