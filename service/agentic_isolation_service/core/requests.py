"""Requests that come again while they are being carried out, from a client's or a mesh's retry: they join the first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import InvalidArgumentError, UnavailableError

_T = TypeVar("_T")


class SharedCalls(Generic[_T]):
    """Calls under way, by whose they are and the ids of their requests."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], tuple[object, SharedCall[_T]]] = {}

    def join(self, owner: str, request_id: str, content: object, run: Callable[[], Awaitable[_T]]) -> SharedCall[_T]:
        """Returns the owner's call of that id that is under way, or a new one.

        Args:
            owner: Whose request it is: nobody else's joins it.
            request_id: The client's id; empty: the request has none, and no other joins it.
            content: What was asked; equal for the same request.
            run: The call.

        Raises:
            InvalidArgumentError: A request of that id and other content is under way.
        """
        if not request_id:
            return SharedCall(run)
        key = owner, request_id
        found = self._calls.get(key)
        if found is None:
            found = self._calls[key] = content, SharedCall(run, lambda: self._calls.pop(key))
        elif found[0] != content:
            raise InvalidArgumentError(
                f"{request_id!r} is used for another request right now; make a new id for each request",
                field="request_id",
            )
        return found[1]


class SharedCall(Generic[_T]):
    """One run of a coroutine for all who wait for it. When the last of them is cancelled, so is the run."""

    def __init__(self, run: Callable[[], Awaitable[_T]], on_end: Callable[[], object] = lambda: None) -> None:
        self._run = run
        self._on_end = on_end
        self._task: asyncio.Future[_T] | None = None
        self._waiting = 0
        self._abandoned = False

    @property
    def unwanted(self) -> _T | None:
        """The result of a run that was being cancelled and was done all the same; None where there is none."""
        task = self._task
        if not self._abandoned or task is None or not task.done() or task.cancelled() or task.exception():
            return None
        return task.result()

    async def wait(self) -> _T:
        """Starts the run or joins it; returns its result or raises its error.

        Raises:
            UnavailableError: The run is being cancelled, because those who waited for it before have gone.
        """
        if self._abandoned:
            raise UnavailableError("the first run of this request was cancelled just now; try again")
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())
            self._task.add_done_callback(lambda _: self._on_end())
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
