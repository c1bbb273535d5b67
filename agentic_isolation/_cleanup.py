"""Clean-up that runs to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


async def finish(cleanup: Coroutine[object, object, None]) -> None:
    """Awaits a clean-up to its end, however often the waiting task is cancelled meanwhile; then it is cancelled.

    The clean-up bounds its own time.
    """
    task = asyncio.ensure_future(cleanup)
    cancelled: tuple[object, ...] | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error.args  # by what it says anyio knows whose it is
    if cancelled is not None:
        raise asyncio.CancelledError(*cancelled)
    task.result()
