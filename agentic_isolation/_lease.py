"""Keeping a lease from running out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from agentic_isolation.errors import IsolationError

RENEWALS_PER_LEASE = 3
"""So two attempts in a row may fail."""


async def keep_renewed(lease: float, renew: Callable[[], Awaitable[object]]) -> None:
    """Calls `renew` a few times per lease (in seconds) until the task is cancelled.

    What goes wrong is left for the next attempt: the user's own next call reports it. So is a workspace that is not
    found: a service that has lost its registry, or has other settings for a while, finds it again.
    """
    while True:
        await asyncio.sleep(lease / RENEWALS_PER_LEASE)
        with contextlib.suppress(IsolationError):
            await renew()


async def end(task: asyncio.Task[None]) -> None:
    """Cancels a task and awaits its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
