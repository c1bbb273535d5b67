"""Request ids: a request that comes again, from a client's or a mesh's retry, is not carried out again.

Each id is remembered for a window, with a digest of what was asked and what came of it. Memory is bounded by the number
of ids: the oldest are forgotten first.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import InvalidArgumentError, UnavailableError
from agentic_isolation_service.core.validation import check_request_id

_T = TypeVar("_T")

WINDOW = 600.0
"""Seconds that an id is remembered."""
MAX_IDS = 100_000


class RequestLog(Generic[_T]):
    """What came of the requests of one kind, by scope and id."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, str], tuple[bytes, float, _T]] = OrderedDict()

    def get(self, scope: str, request_id: str, content: object, make: Callable[[], _T]) -> _T:
        """Returns what the id stands for: what was made for it before, or what `make` makes now.

        Args:
            scope: Where the id is unique, for example a workspace's id.
            request_id: The client's id; empty: the request has none and nothing is remembered.
            content: What was asked; its repr must be the same for the same request.
            make: Called for an id that is not remembered.

        Raises:
            InvalidArgumentError: The id is malformed, or was used for a request of other content.
        """
        if not request_id:
            return make()
        check_request_id(request_id)
        self._forget_old()
        digest = hashlib.sha256(repr(content).encode("utf-8", "surrogatepass")).digest()
        found = self._entries.get((scope, request_id))
        if found is None:
            value = make()
            self._entries[scope, request_id] = (digest, time.monotonic(), value)
            return value
        if found[0] != digest:
            raise InvalidArgumentError(
                f"{request_id!r} was used for another request before; make a new id for each request",
                field="request_id",
            )
        return found[2]

    def forget(self, scope: str, request_id: str) -> None:
        """Forgets an id, because its request was not carried out."""
        self._entries.pop((scope, request_id), None)

    def _forget_old(self) -> None:
        horizon = time.monotonic() - WINDOW
        while self._entries:
            oldest = next(iter(self._entries))
            if self._entries[oldest][1] > horizon and len(self._entries) < MAX_IDS:
                break
            del self._entries[oldest]


class SharedCall(Generic[_T]):
    """One run of a coroutine for all who wait for it. When the last of them is cancelled, so is the run."""

    def __init__(self, run: Callable[[], Awaitable[_T]]) -> None:
        self._run = run
        self._task: asyncio.Future[_T] | None = None
        self._waiting = 0
        self._abandoned = False

    @property
    def failed(self) -> bool:
        """Whether the run ended without a result."""
        return self._task is not None and self._task.done() and (self._task.cancelled() or bool(self._task.exception()))

    @property
    def unwanted(self) -> _T | None:
        """The result of a run that was being cancelled and was done all the same; None where there is none."""
        if not self._abandoned or self._task is None or not self._task.done() or self.failed:
            return None
        return self._task.result()

    async def wait(self) -> _T:
        """Starts the run or joins it; returns its result or raises its error.

        Raises:
            UnavailableError: The run is being cancelled, because those who waited for it before have gone.
        """
        if self._abandoned:
            raise UnavailableError("the first run of this request was cancelled just now; try again")
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if self._waiting == 1:
                self._abandoned = True
                self._task.cancel()
                await finish(_end_of(self._task))
            raise
        finally:
            self._waiting -= 1


async def _end_of(task: asyncio.Future[_T]) -> None:
    await asyncio.wait([task])
