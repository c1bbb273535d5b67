"""One workspace that the service holds: its place, its guest, its lease."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import IsolationError, UnavailableError
from agentic_isolation.models import ResourceUsage, WorkspaceConfig, WorkspaceInfo, WorkspaceState
from agentic_isolation_service.core.ports import Place, Provider
from agentic_isolation_service.core.quotas import commitment_of
from agentic_isolation_service.core.records import Registry, WorkspaceRecord
from agentic_isolation_service.core.validation import check_lease
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.session import GuestSession
from agentic_isolation_service.guest.settings import terms

_ANSWER_TIMEOUT = 5.0
"""Seconds that a guest has to say how it is."""
_OVERDUE = 30.0
"""Seconds for which a guest whose lease seems to be over is asked whether it still has time."""
_ASK_AGAIN = 2.0
"""Seconds."""
_log = logging.getLogger(__name__)


class HeldWorkspace:
    """A workspace in the service's hands. It owns the tasks that watch it, until it is destroyed or left.

    Args:
        provider: What made its place.
        place: Its place.
        session: The tie to its guest.
        record: What is written down of it.
        registry: Where.
    """

    def __init__(
        self, provider: Provider, place: Place, session: GuestSession, record: WorkspaceRecord, registry: Registry
    ) -> None:
        self.session = session
        self.commitment = commitment_of(provider.with_defaults(record.config))
        """What it is limited to."""
        self._provider = provider
        self._place = place
        self._record = record
        self._registry = registry
        self._ends_at = _loop_time(record.info.lease_expires_at)
        self._ends_earlier = asyncio.Event()
        """Whether that has come nearer since it was last looked at."""
        self._over_at = _end_of_life(record)
        self._watchers: list[asyncio.Task[object]] = []
        self._ending = record.info.state is not WorkspaceState.READY
        self.told = False
        """Whether somebody was told of it, or may have been: then it is not taken back."""
        self.disowned = False
        """Whether nobody was told of it, nor will be."""
        self._destroying: asyncio.Task[None] | None = None

    @property
    def config(self) -> WorkspaceConfig:
        """What it was made from."""
        return self._record.config

    @property
    def provider(self) -> str:
        """The name of what made it."""
        return self._provider.name

    @property
    def owner(self) -> str:
        """The tenant whose it is; empty: of whoever runs the service."""
        return self._record.owner

    @property
    def state(self) -> WorkspaceState:
        """How it is now."""
        if self._ending:
            return WorkspaceState.DESTROYING
        return WorkspaceState.READY if self.session.lost is None else WorkspaceState.LOST

    @property
    def info(self) -> WorkspaceInfo:
        """The workspace as it is now, without its usage."""
        return replace(self._record.info, state=self.state, tenant=self.owner)

    async def info_with_usage(self) -> WorkspaceInfo:
        """Returns the workspace as it is now, with what it uses as far as its guest answers."""
        usage = ResourceUsage()
        with contextlib.suppress(IsolationError, TimeoutError):
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                usage = await self.session.call_for({"op": "usage"}, payloads.usage)
        return replace(self.info, usage=usage)

    async def claim(self, record: WorkspaceRecord, secrets: Mapping[str, str], sealed: str) -> None:
        """Makes a pool's place the workspace of a request: its times begin now, and everything else is the request's.

        Its caller bounds the time. A place whose claim has failed or was cancelled has to be destroyed.

        Args:
            record: What is to be written down of it.
            secrets: What its commands get and nobody writes down.
            sealed: The record for the guest to remember.

        Raises:
            RegistryUnavailableError: It cannot be written down.
            IsolationError: The guest does not take it.
        """
        operation = {"op": "claim", **terms(record.config), "values": dict(secrets), "record": sealed}
        left = await self.session.call_for(operation, payloads.lease_left, since=4)
        self._record = record
        self._over_at = _end_of_life(record)
        self._note(record.config.lease if left is None else left)
        try:
            await self._registry.put(self._record)
        except BaseException:
            await finish(self.disown())  # it may have been written all the same
            raise

    async def disown(self) -> None:
        """Sees to it that no repeat of its request finds it: each makes another one. It has to be destroyed then."""
        self.disowned = True
        unmade = replace(self._record, info=replace(self._record.info, state=WorkspaceState.CREATING))
        await self._written(self._registry.put(unmade))

    def watch(self, on_ended: Callable[[], None]) -> None:
        """Begins to watch the guest and the lease, and calls `on_ended` when the workspace's time is over."""
        self._watchers = [
            asyncio.create_task(self._watch_lease(on_ended)),
            asyncio.create_task(self._watch_guest(on_ended)),
        ]

    async def renew(self, seconds: float | None = None) -> dt.datetime:
        """Sets the lease to end so many seconds from now, or with the lifetime, and returns when that is.

        Args:
            seconds: None: as long as it was set before.

        Raises:
            InvalidArgumentError: Out of range.
            WorkspaceLostError: The guest is gone.
        """
        lease = self.config.lease if seconds is None else seconds
        check_lease(lease)
        left = await self.session.call_for({"op": "lease", "ttl_ms": round(lease * 1000)}, payloads.lease_left)
        self._record = replace(self._record, config=replace(self.config, lease=lease))
        self._note(lease if left is None else left)
        if self._ending:  # and that is written down
            return self._record.info.lease_expires_at
        try:
            await self._registry.renew(self._record)
        except UnavailableError as error:
            # The lease that counts is the guest's; the registry's only saves asking.
            _log.warning("a renewal is not written down: %s", error, extra={"workspace_id": self._place.workspace_id})
        return self._record.info.lease_expires_at

    async def destroy(self, on_destroyed: Callable[[], None]) -> None:
        """Kills everything in it and removes its place, then calls `on_destroyed`.

        Joins a destruction that is under way; goes on when cancelled. After a failure it may be tried again, and the
        lease is still watched.
        """
        self._ending = True
        if self._destroying is None:
            self._destroying = asyncio.create_task(self._destroy(on_destroyed))
            self._destroying.add_done_callback(_seen)
        await asyncio.shield(self._destroying)

    @property
    def pool(self) -> str:
        """The pool whose place it is; empty: somebody's workspace."""
        return self._record.pool

    @property
    def image_id(self) -> str:
        """What the image of a pool's place stood for when it was made."""
        return self._record.image_id

    async def leave(self) -> None:
        """Lets go of it: its guest ends it when its time is over. What is half destroyed is left so."""
        if self._destroying is not None:
            await _end([self._destroying])
        await _end(self._watchers)
        await self.session.aclose()

    async def _destroy(self, on_destroyed: Callable[[], None]) -> None:
        workspace_id = self._place.workspace_id
        try:
            ending = replace(self._record, info=replace(self._record.info, state=WorkspaceState.DESTROYING))
            await self._written(self._registry.put(ending))
            await _end(self._watchers[1:])
            told = await self.session.shut_down()
            await self._provider.destroy(self._place, ending=told)
        except BaseException:
            self._destroying = None
            raise
        await self._written(self._registry.remove(workspace_id, keep_request=True))
        await _end(self._watchers[:1])
        on_destroyed()

    async def _written(self, writing: Coroutine[object, object, None]) -> None:
        """Writes down what is so anyway: a registry that cannot take it now finds it out from the place."""
        try:
            await writing
        except UnavailableError as error:
            _log.warning("%s", error, extra={"workspace_id": self._place.workspace_id})

    async def _watch_lease(self, on_ended: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while (left := self._ends_at - loop.time()) > 0:  # renewals move the end meanwhile
                self._ends_earlier.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._ends_earlier.wait()
            if not await self._has_time():
                self.session.note_ending("lifetime" if loop.time() >= self._over_at else "lease")
                on_ended()
                return

    async def _has_time(self) -> bool:
        """Asks the guest whether its lease is really over: its clock is the one that counts, ours may have jumped.

        However long ago that was: what is written down may lack renewals, and this process may have been stopped.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _OVERDUE
        while self.session.lost is None and loop.time() < until:
            with contextlib.suppress(IsolationError, TimeoutError):
                async with asyncio.timeout(_ANSWER_TIMEOUT):
                    left = await self.session.call_for({"op": "info"}, payloads.lease_left)
                return left is not None and left > 0 and self._note(left)
            await asyncio.sleep(_ASK_AGAIN)
        return False

    async def _watch_guest(self, on_ended: Callable[[], None]) -> None:
        await self.session.wait_lost()
        if self.session.ended:
            on_ended()

    def _note(self, left: float) -> bool:
        """Takes note of the seconds that the workspace has left, as its guest says; returns whether that are any.

        They are part of the lease, and of the lifetime.
        """
        now = asyncio.get_running_loop().time()
        left = max(min(left, self.config.lease, self._over_at - now), 0.0)
        if now + left < self._ends_at:
            self._ends_earlier.set()
        self._ends_at = now + left
        expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=left)
        self._record = replace(self._record, info=replace(self._record.info, lease_expires_at=expires_at))
        return left > 0


def _end_of_life(record: WorkspaceRecord) -> float:
    """Returns the time of the loop at which a workspace is over, whatever its guest says.

    Counted from now: the clock may have been set since it was made, and the guest's own count is the exact one.
    """
    lifetime = record.config.max_lifetime
    return math.inf if lifetime is None else asyncio.get_running_loop().time() + lifetime


def _loop_time(moment: dt.datetime) -> float:
    return asyncio.get_running_loop().time() + (moment - dt.datetime.now(dt.UTC)).total_seconds()


def _seen(task: asyncio.Task[None]) -> None:
    """Has nobody complain where whoever waited for a task has gone just before it failed."""
    if not task.cancelled():
        task.exception()


async def _end(tasks: Sequence[asyncio.Task[object] | asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
