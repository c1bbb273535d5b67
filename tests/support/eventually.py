"""Waiting for a condition, bounded in time: what tests do where there is no event to wait on."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable

PATIENCE = 20.0
"""Seconds: far more than anything here takes on a busy machine, far less than a test may take."""
_INTERVAL = 0.02


async def eventually(condition: Callable[[], object], what: str, *, within: float = PATIENCE) -> None:
    """Waits until a condition, which may be asynchronous, gives something true; fails when it does not in time."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return
        assert time.monotonic() < deadline, f"not within {within:g} s: {what} (last seen: {value!r})"
        await asyncio.sleep(_INTERVAL)
