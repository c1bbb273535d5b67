"""Keeping a lease from running out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agentic_isolation.errors import IsolationError, WorkspaceNotFoundError

RENEWALS_PER_LEASE = 3
"""So two attempts in a row may fail."""


async def keep_renewed(lease: float, renew: Callable[[], Awaitable[object]]) -> None:
    """Calls `renew` a few times per lease (in seconds) until the workspace is gone or the task is cancelled.

    What goes wrong is left for the next attempt: the user's own next call reports it.
    """
    while True:
        await asyncio.sleep(lease / RENEWALS_PER_LEASE)
        try:
            await renew()
        except WorkspaceNotFoundError:
            return
        except IsolationError:
            continue


async def end(task: asyncio.Task[None]) -> None:
    """Cancels a task and awaits its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
