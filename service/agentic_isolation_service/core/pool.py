"""One template's places: those that nobody has asked for yet, and what was asked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from agentic_isolation.errors import IsolationError, UnavailableError
from agentic_isolation.models import PoolInfo
from agentic_isolation_service.core.pacing import Demand, pause_after
from agentic_isolation_service.core.replicas import hide_ids
from agentic_isolation_service.core.templates import PoolTemplate
from agentic_isolation_service.core.workspace import HeldWorkspace
from agentic_isolation_service.guest import payloads

POOL_LEASE = 300.0
"""Seconds after which a place ends whose service is gone for good."""
_RENEW_EVERY = POOL_LEASE / 4
"""Seconds."""
_ANSWER_TIMEOUT = 10.0
"""Seconds that a guest has to answer."""
_ASK_AGAIN = 2.0
"""Seconds."""
_log = logging.getLogger(__name__)


class PooledPlace:
    """A place that nobody has asked for yet. It owns the task that renews its lease and watches its guest.

    Args:
        held: The place.
        image_id: What its image stood for when it was made.
        is_unclaimed: Tells whether it is still nobody's, where that is not sure.
    """

    def __init__(
        self, held: HeldWorkspace, image_id: str, is_unclaimed: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        self.held = held
        self.image_id = image_id
        self._is_unclaimed = is_unclaimed
        self._renewing = asyncio.Lock()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """The id of the workspace that it will be."""
        return self.held.info.id

    def keep(self, on_ready: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Begins to keep it: calls `on_ready` when it may be claimed, and `on_lost` when it no longer may."""
        self._keeping = asyncio.create_task(self._keep(on_ready, on_lost), name=f"keep-pooled:{self.id}")

    async def release(self) -> None:
        """Keeps it no longer. A renewal that is under way is waited for: it must not come after the claim."""
        async with self._renewing:
            if self._keeping is not None:
                self._keeping.cancel()
                await asyncio.gather(self._keeping, return_exceptions=True)

    async def destroy(self, on_destroyed: Callable[[], None]) -> None:
        """Removes it like HeldWorkspace.destroy."""
        await self.release()
        await self.held.destroy(on_destroyed)

    async def leave(self) -> None:
        """Lets go of it: the service's next process takes it up, or its lease ends it."""
        await self.release()
        await self.held.leave()

    async def _keep(self, on_ready: Callable[[], None], on_lost: Callable[[], None]) -> None:
        if await self._is_ours():
            on_ready()
            await self._lost()
        on_lost()

    async def _is_ours(self) -> bool:
        """Returns whether it is nobody's. One that has not said so when its lease must be over is not waited for."""
        if self._is_unclaimed is None:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POOL_LEASE):
                while True:
                    try:
                        async with asyncio.timeout(_ANSWER_TIMEOUT):
                            return await self._is_unclaimed()
                    except (UnavailableError, TimeoutError):
                        await asyncio.sleep(_ASK_AGAIN)
                    except IsolationError:
                        return False
        return False

    async def _lost(self) -> None:
        """Returns when the guest is gone; renews its lease meanwhile."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RENEW_EVERY):
                    await self.held.session.wait_lost()
                    return
            async with self._renewing:
                with contextlib.suppress(IsolationError, TimeoutError):
                    async with asyncio.timeout(_ANSWER_TIMEOUT):
                        lease = {"op": "lease", "ttl_ms": round(POOL_LEASE * 1000)}
                        await self.held.session.call_for(lease, payloads.lease_left)


class Pool:
    """The places of one template.

    Args:
        template: What they are made from, and how many there should be.
    """

    def __init__(self, template: PoolTemplate) -> None:
        self.template = template
        self.demand = Demand(template.min, template.max)
        self.ready: deque[PooledPlace] = deque()
        """Oldest first."""
        self.entering: set[PooledPlace] = set()
        """Those of an earlier process of the service, as long as it is not known whether they may be claimed."""
        self.starved = False
        """Whether somebody was told to wait for a place of his own since the last one was made."""
        self.not_before = 0.0
        """When the next attempt to make a place may begin, by the clock of the event loop."""
        self._hits = 0
        self._misses = 0
        self._failures = 0
        self._last_error = ""

    def lacking(self, now: float) -> int:
        """Returns how many places should be made; negative: how many there are too many."""
        return self.demand.wanted(now) - len(self.ready) - len(self.entering)

    def enter(self, place: PooledPlace) -> None:
        """Takes note of a place that may be claimed, unless it was dropped while its guest was asked."""
        if place in self.entering:
            self.entering.discard(place)
            self.ready.append(place)

    def take(self) -> PooledPlace | None:
        """Returns the oldest place, which is nobody else's from now on; None: there is none."""
        return self.ready.popleft() if self.ready else None

    def drop(self, place: PooledPlace) -> None:
        """Takes note that a place may not be claimed any more."""
        self.entering.discard(place)
        with contextlib.suppress(ValueError):
            self.ready.remove(place)

    def count(self, *, hit: bool) -> None:
        """Takes note of whether a request got a place."""
        self._hits += hit
        self._misses += not hit
        self.starved = not hit

    def made(self, seconds: float) -> None:
        """Takes note of a place that was made, and how long that took."""
        self.demand.made(seconds)
        self.starved = False
        if self._last_error:
            _log.info("pool %s is refilled again", self.template.name)
        self._failures, self._last_error = 0, ""

    def failed(self, reason: str, now: float) -> None:
        """Takes note of a place that could not be made. Tells so when the reason is another one than last time."""
        self._failures += 1
        self.not_before = now + pause_after(self._failures)
        # What is said of one workspace after the other is the same reason.
        reason = hide_ids(reason)
        if reason != self._last_error:
            _log.warning("pool %s cannot be refilled: %s", self.template.name, reason)
        self._last_error = reason

    def info(self, now: float, *, refilling: bool) -> PoolInfo:
        """Returns the pool as it is now."""
        config = self.template.config
        return PoolInfo(
            name=self.template.name,
            provider=config.provider,
            image=config.image or "",
            ready=len(self.ready),
            wanted=self.demand.wanted(now),
            min=self.template.min,
            max=self.template.max,
            hits=self._hits,
            misses=self._misses,
            refilling=refilling,
            last_error=self._last_error,
        )
