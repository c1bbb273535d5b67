"""Calls that block, in a thread, which is never left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Protocol, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Closable(Protocol):
    """What holds something until it is closed."""

    def close(self) -> None: ...


_C = TypeVar("_C", bound=Closable)


async def in_thread(function: Callable[_P, _T], *args: _P.args, **options: _P.kwargs) -> _T:
    """Calls a function in a thread and returns its result. Cancelled, it waits for the function's end all the same."""
    return await _ended(asyncio.ensure_future(asyncio.to_thread(function, *args, **options)))


async def opened_in_thread(function: Callable[_P, _C], *args: _P.args, **options: _P.kwargs) -> _C:
    """As `in_thread`, for one that opens something. Cancelled, it leaves nothing open."""
    opening = asyncio.ensure_future(asyncio.to_thread(function, *args, **options))
    try:
        return await _ended(opening)
    except asyncio.CancelledError:
        if not opening.cancelled() and opening.exception() is None:
            await in_thread(opening.result().close)
        raise


async def in_own_thread(function: Callable[[], _T]) -> _T:
    """As `in_thread`, for one that waits for others: it takes none of the threads that the event loop's users share."""
    executor = ThreadPoolExecutor(1)
    try:
        return await _ended(asyncio.get_running_loop().run_in_executor(executor, function))
    finally:
        executor.shutdown(wait=False)


async def _ended(call: asyncio.Future[_T]) -> _T:
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        while not call.done():
            try:
                await asyncio.wait([call])
            except asyncio.CancelledError:
                continue
        if not call.cancelled():
            call.exception()  # it is known to somebody now
        raise
