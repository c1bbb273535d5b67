"""Calls that block, in a thread, which is never left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(function: Callable[_P, _T], *args: _P.args, **options: _P.kwargs) -> _T:
    """Calls a function in a thread and returns its result. Cancelled, it waits for the function's end all the same."""
    return await _ended(asyncio.ensure_future(asyncio.to_thread(function, *args, **options)))


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
