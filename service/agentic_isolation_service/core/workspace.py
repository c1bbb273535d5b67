"""One workspace that the service holds: its place, its guest, its lease."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable
from dataclasses import replace

from agentic_isolation.errors import IsolationError
from agentic_isolation.models import ResourceUsage, WorkspaceConfig, WorkspaceInfo, WorkspaceState
from agentic_isolation_service.core.ports import Place, Provider
from agentic_isolation_service.core.validation import check_lease
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.session import GuestSession

_USAGE_TIMEOUT = 5.0
"""Seconds."""


class HeldWorkspace:
    """A workspace in the service's hands. It owns the tasks that watch it, until it is destroyed.

    Attributes:
        config: What it was made from.
        session: The tie to its guest.
    """

    def __init__(
        self, provider: Provider, place: Place, config: WorkspaceConfig, session: GuestSession, info: WorkspaceInfo
    ) -> None:
        self.config = config
        self.session = session
        self._provider = provider
        self._place = place
        self._info = info
        self._lease = config.lease
        self._expires_at = asyncio.get_running_loop().time() + config.lease
        self._watchers: list[asyncio.Task[object]] = []
        self._ending = False
        self._destroying: asyncio.Task[None] | None = None

    @property
    def info(self) -> WorkspaceInfo:
        """The workspace as it is now, without its usage."""
        state = self._info.state
        if self._ending:
            state = WorkspaceState.DESTROYING
        elif self.session.lost is not None:
            state = WorkspaceState.LOST
        return replace(self._info, state=state)

    async def info_with_usage(self) -> WorkspaceInfo:
        """Returns the workspace as it is now, with what it uses as far as its guest answers."""
        usage = ResourceUsage()
        with contextlib.suppress(IsolationError, TimeoutError):
            async with asyncio.timeout(_USAGE_TIMEOUT):
                usage = await self.session.call_for({"op": "usage"}, payloads.usage)
        return replace(self.info, usage=usage)

    def watch(self, on_expired: Callable[[], None]) -> None:
        """Begins to watch the guest and the lease, and calls `on_expired` when that has run out."""
        self._watchers = [
            asyncio.create_task(self._watch_lease(on_expired)),
            asyncio.create_task(self.session.wait_lost()),
        ]

    async def renew(self, seconds: float | None = None) -> dt.datetime:
        """Sets the lease to end so many seconds from now and returns when that is.

        Args:
            seconds: None: as long as it was set before.

        Raises:
            InvalidArgumentError: Out of range.
            WorkspaceLostError: The guest is gone.
        """
        if seconds is not None:
            check_lease(seconds)
            self._lease = seconds
        await self.session.call({"op": "lease", "ttl_ms": round(self._lease * 1000)})
        self._expires_at = asyncio.get_running_loop().time() + self._lease
        expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self._lease)
        self._info = replace(self._info, lease_expires_at=expires_at)
        return expires_at

    async def destroy(self, on_destroyed: Callable[[], None]) -> None:
        """Kills everything in it and removes its place, then calls `on_destroyed`.

        Joins a destruction that is under way; goes on when cancelled. After a failure it may be tried again, and the
        lease is still watched.
        """
        self._ending = True
        if self._destroying is None:
            self._destroying = asyncio.create_task(self._destroy(on_destroyed))
        await asyncio.shield(self._destroying)

    async def leave(self) -> None:
        """Watches it no longer: what could not be destroyed is ended by the lease inside of it."""
        await _end(self._watchers)

    async def _destroy(self, on_destroyed: Callable[[], None]) -> None:
        try:
            await _end(self._watchers[1:])
            await self.session.aclose()
            await self._provider.destroy(self._place)
        except BaseException:
            self._destroying = None
            raise
        await _end(self._watchers[:1])
        on_destroyed()

    async def _watch_lease(self, on_expired: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._expires_at - loop.time()) > 0:  # noqa: ASYNC110  renewals move the end meanwhile
            await asyncio.sleep(left)
        on_expired()


async def _end(tasks: list[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
