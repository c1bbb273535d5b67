"""Threads for clients that block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


class Threads:
    """As many threads as a measurement has calls in flight."""

    COUNT = 64

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.COUNT)

    async def run(self, call: Callable[[], _T]) -> _T:
        """Returns what a call returns that blocks."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def iterate(self, start: Callable[[], Iterator[_T]]) -> AsyncGenerator[_T, None]:
        """Yields what an iterator yields that blocks."""
        iterator = await self.run(start)
        end = object()
        while (item := await self.run(lambda: next(iterator, end))) is not end:
            yield item  # type: ignore[misc]

    def close(self) -> None:
        """Waits for running calls and ends the threads."""
        self._pool.shutdown()
