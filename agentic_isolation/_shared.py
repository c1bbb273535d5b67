"""A resource that several users share: opened by the first, closed by the last."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

from agentic_isolation._cleanup import finish
from agentic_isolation._loops import same_loop
from agentic_isolation._nested import nested

_T = TypeVar("_T")


class Shared(Generic[_T]):
    """Opens `resource` anew whenever it has its first user.

    Args:
        resource: Makes the context manager that opens and closes it.
    """

    def __init__(self, resource: Callable[[], AbstractAsyncContextManager[_T]]) -> None:
        self._resource = resource
        self._lock = asyncio.Lock()
        self._users = 0
        """Who uses it, or waits for it to be open."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where its users are; None while there are none."""
        self._open = contextlib.AsyncExitStack()
        self._value: _T | None = None

    @nested
    async def use(self) -> AsyncIterator[_T]:
        """Yields the open resource. Leaving it goes on to its end when cancelled.

        Raises:
            RuntimeError: It is in use on another event loop.
        """
        self._loop = same_loop(self._loop)
        self._users += 1
        try:
            async with self._lock:
                if self._value is None:
                    self._value = await self._open.enter_async_context(self._resource())
                value = self._value
            yield value
        finally:
            await finish(self._leave())

    async def _leave(self) -> None:
        async with self._lock:
            self._users -= 1
            if self._users == 0:
                self._value = None
                await self._open.aclose()
        if self._users == 0:
            self._loop = None
            self._lock = asyncio.Lock()  # one that was waited for keeps its event loop
