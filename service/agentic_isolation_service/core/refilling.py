"""When places are made for pools: one at a time for the whole service, and out of the way of who waits for one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence

from agentic_isolation_service.core.pacing import rest_after
from agentic_isolation_service.core.pool import Pool

LOOK_INTERVAL = 60.0
"""Seconds between two looks for places that are out of date."""
_COLD_PATIENCE = 10.0
"""Seconds for which workspaces that are made without a pool go first."""
_LONGEST_WAIT = 5.0
"""Seconds after which demand is looked at again."""


class Refiller:
    """Makes places where pools lack them, and has those removed that are too many.

    While a pool has places, the making of others rests for as long as the last one took, and waits while workspaces are
    made for somebody. One that has none when asked is refilled at once. One that cannot be refilled pauses.

    Args:
        pools: All pools of the service.
        refill: Makes one place for a pool. Raises nothing.
        renovate: Removes a pool's places that are out of date. Raises nothing.
        trim: Removes so many of a pool's places.
        room: Whether a pool may have one more place.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        *,
        refill: Callable[[Pool], Awaitable[None]],
        renovate: Callable[[Pool], Awaitable[None]],
        trim: Callable[[Pool, int], None],
        room: Callable[[Pool], bool],
    ) -> None:
        self.current: Pool | None = None
        """The pool that a place is being made for."""
        self._pools = pools
        self._refill = refill
        self._renovate = renovate
        self._trim = trim
        self._room = room
        self._changed = asyncio.Event()
        self._cold = 0
        self._cold_since = 0.0
        self._resting_until = 0.0

    @contextlib.contextmanager
    def cold_create(self) -> Iterator[None]:
        """Makes the pools wait while a workspace is made without them."""
        if self._cold == 0:
            self._cold_since = asyncio.get_running_loop().time()
        self._cold += 1
        try:
            yield
        finally:
            self._cold -= 1
            self.wake()

    def wake(self) -> None:
        """Has it look at the pools now."""
        self._changed.set()

    async def run(self) -> None:
        """Keeps the pools filled until it is cancelled."""
        clock = asyncio.get_running_loop().time
        look_at = clock()
        while True:
            self._changed.clear()
            if clock() >= look_at:
                for pool in self._pools:
                    await self._renovate(pool)
                look_at = clock() + LOOK_INTERVAL
            now = clock()
            for pool in self._pools:
                if (surplus := -pool.lacking(now)) > 0:
                    self._trim(pool, surplus)
            neediest = self._neediest(now)
            pause = _LONGEST_WAIT if neediest is None else self._pause(neediest, now)
            if neediest is not None and pause <= 0:
                await self._make(neediest)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(pause, look_at - now, _LONGEST_WAIT)):
                    await self._changed.wait()

    async def _make(self, pool: Pool) -> None:
        clock = asyncio.get_running_loop().time
        self.current, began = pool, clock()
        try:
            await self._refill(pool)
        finally:
            self.current = None
        self._cold_since = clock()
        self._resting_until = self._cold_since + rest_after(self._cold_since - began)

    def _neediest(self, now: float) -> Pool | None:
        lacking = []
        for pool in self._pools:
            if pool.lacking(now) <= 0:
                continue
            if self._room(pool):
                lacking.append(pool)
            elif pool.not_before <= now:
                pool.failed("the service has as many workspaces as it may", now)

        def patience(pool: Pool) -> tuple[float, bool, int]:
            return max(pool.not_before - now, 0.0), not pool.starved, len(pool.ready)

        return min(lacking, key=patience, default=None)

    def _pause(self, pool: Pool, now: float) -> float:
        """Returns the seconds until a place may be made for a pool."""
        until = pool.not_before
        if not pool.starved:
            until = max(until, self._resting_until)
            if self._cold:
                until = max(until, self._cold_since + _COLD_PATIENCE)
        return until - now
