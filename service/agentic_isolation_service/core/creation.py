"""Making a workspace: every step is undone when a later one fails, and found again when the service was killed."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import (
    InvalidArgumentError,
    IsolationError,
    ProviderUnavailableError,
    UnavailableError,
)
from agentic_isolation.models import Isolation, WorkspaceConfig, WorkspaceInfo, WorkspaceState
from agentic_isolation_service.core.counts import Counts
from agentic_isolation_service.core.exhaustion import judge_of
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.ports import Place, PlaceSpec, Provider
from agentic_isolation_service.core.records import Registry, WorkspaceRecord
from agentic_isolation_service.core.replicas import Replica
from agentic_isolation_service.core.workspace import HeldWorkspace
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.session import GuestSession
from agentic_isolation_service.guest.settings import terms

_T = TypeVar("_T")
FIRST_ANSWER = 40.0
"""Seconds after which a new guest that has not answered is asked no more."""
_FIRST_ANSWER_PAUSE = 0.2
_LEAST_WHILE_MADE = 10.0
"""Seconds that a workspace which is being made lasts without its service, where its own times are shorter.

A busy engine takes some of them from a guest's start until it can be reached.
"""
_RENEWALS = 4
"""Into as many parts what is left of its lease is divided: after one it is renewed."""
_LEAST_LEFT = 0.4
"""Seconds that a guest is taken to have left at least: one that says less is not asked without a pause."""
_log = logging.getLogger(__name__)


class Creations:
    """Makes workspaces.

    Args:
        registry: Where each is written down, before anything of it is made.
        identity: Whose they are.
        replica: What their ids tell of it.
        request_window: Seconds that their guests remember the results of requests.
        counts: Where what goes on with them is counted.
    """

    def __init__(
        self, registry: Registry, identity: Identity, replica: Replica, *, request_window: float, counts: Counts
    ) -> None:
        self._registry = registry
        self._identity = identity
        self._replica = replica
        self._request_window = request_window
        self._counts = counts
        self._for_pools: set[str] = set()
        self.under_way: dict[str, asyncio.Task[object]] = {}
        """The tasks that make or claim workspaces, by the workspaces' ids."""

    @property
    def asked_count(self) -> int:
        """How many workspaces are being made or claimed for somebody."""
        return len(self.under_way) - len(self._for_pools)

    async def find(self, config: WorkspaceConfig, request_id: str, owner: str) -> str | None:
        """Returns the id of the workspace that an owner's request has made before; None: there is none.

        Raises:
            InvalidArgumentError: The request asked for something else.
        """
        asked = self._record(config, request_id, owner)
        return await self._registry.find_request(owner, request_id, asked.config, asked.secrets_fingerprint)

    async def make(self, provider: Provider, config: WorkspaceConfig, request_id: str, owner: str) -> HeldWorkspace:
        """Returns a new workspace, which runs commands. Leaves nothing of it when it fails or is cancelled.

        Raises:
            IsolationError: As Workspaces.create.
        """
        return await self._make_written(provider, self._record(config, request_id, owner), config.secrets)

    async def make_for_pool(
        self, provider: Provider, config: WorkspaceConfig, pool: str, image_id: str
    ) -> HeldWorkspace:
        """Returns a new place of a pool, made as any other workspace is.

        Raises:
            IsolationError: As Workspaces.create.
        """
        record = replace(self._record(config, "", ""), pool=pool, image_id=image_id)
        return await self._make_written(provider, record, {})

    async def claim(self, pooled: HeldWorkspace, config: WorkspaceConfig, request_id: str, owner: str) -> None:
        """Makes a pool's place the workspace of a request; see HeldWorkspace.claim, also for what it raises."""
        asked = self._record(config, request_id, owner)
        own = pooled.info
        info = replace(
            asked.info, id=own.id, state=WorkspaceState.READY, isolation=own.isolation, host_path=own.host_path
        )  # fmt: skip
        record = replace(asked, info=info, boot_id=pooled.session.boot_id)
        await pooled.claim(record, config.secrets, self._sealed(record))

    @contextlib.contextmanager
    def counted(self, workspace_id: str, *, for_pool: bool = False) -> Iterator[None]:
        """Counts what the current task does with a workspace among what is under way."""
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a coroutine runs in a task")
        self.under_way[workspace_id] = task
        if for_pool:
            self._for_pools.add(workspace_id)
        try:
            yield
        finally:
            del self.under_way[workspace_id]
            self._for_pools.discard(workspace_id)

    async def _make_written(
        self, provider: Provider, record: WorkspaceRecord, secrets: Mapping[str, str]
    ) -> HeldWorkspace:
        with self.counted(record.info.id, for_pool=bool(record.pool)):
            try:
                await self._registry.put(record)
                return await self._make(provider, record, secrets)
            except BaseException:
                await finish(self._forget(record))
                raise

    def _sealed(self, record: WorkspaceRecord) -> str:
        return self._identity.seal(self._registry.encode(record))

    def _record(self, config: WorkspaceConfig, request_id: str, owner: str) -> WorkspaceRecord:
        """Returns what is written down of a workspace that is asked for: all but its secrets."""
        fingerprint = self._identity.fingerprint(config.secrets)
        public = replace(config, secrets={})
        return WorkspaceRecord(public, self._announced(public), request_id, owner, fingerprint)

    def _announced(self, config: WorkspaceConfig) -> WorkspaceInfo:
        """Returns a workspace that is about to be made."""
        created_at = dt.datetime.now(dt.UTC)
        return WorkspaceInfo(
            id=self._replica.new_id(),
            provider=config.provider,
            state=WorkspaceState.CREATING,
            working_dir=config.working_dir,
            created_at=created_at,
            lease_expires_at=created_at + dt.timedelta(seconds=_lease_of(config)),
            isolation=Isolation(runtime=""),
            image=config.image or "",
            labels=dict(config.labels),
        )

    async def _make(self, provider: Provider, record: WorkspaceRecord, given: Mapping[str, str]) -> HeldWorkspace:
        workspace_id, config = record.info.id, record.config
        key, meanwhile = self._identity.guest_key(workspace_id), _while_made(config)
        place = await provider.create(PlaceSpec(workspace_id, meanwhile, key, self._request_window))
        counts = self._counts.of(provider.name).guests
        judge = judge_of(provider, place, config)
        session = GuestSession(workspace_id, key, lambda: provider.connect(place), counts, judge=judge)
        try:
            measured, in_gvisor, left = await _first_answer(session, place, meanwhile)
            looking = provider.isolation(place, config, measured, in_gvisor=in_gvisor)
            isolation = await _kept_meanwhile(session, meanwhile.lease, left, looking)
            info = replace(
                record.info,
                state=WorkspaceState.READY,
                lease_expires_at=_expiry(config, left),
                isolation=isolation,
                host_path=place.host_path,
            )
            ready = replace(record, info=info, boot_id=session.boot_id)
            # Its record, so that the workspace is known to be ours even if the registry is lost.
            sealed = self._sealed(ready)
            if ready.pool:
                await session.call({"op": "remember", "record": sealed})
            else:
                left = await _begun(session, config, given, sealed)
                ready = replace(ready, info=replace(info, lease_expires_at=_expiry(config, left)))
            await self._registry.put(ready)
        except BaseException:
            await finish(_discard(provider, place, session))
            raise
        return HeldWorkspace(provider, place, session, ready, self._registry)

    async def _forget(self, record: WorkspaceRecord) -> None:
        try:
            await self._registry.remove(record.info.id, keep_request=False)
        except UnavailableError as error:
            _log.warning("a failed creation stays in the registry: %s", error, extra={"workspace_id": record.info.id})


def _lease_of(config: WorkspaceConfig) -> float:
    """Returns the seconds of a workspace's first lease."""
    return config.lease if config.max_lifetime is None else min(config.lease, config.max_lifetime)


def _expiry(config: WorkspaceConfig, left: float) -> dt.datetime:
    """Returns when a first lease ends, of which a guest says that so many seconds are left."""
    return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=min(left, _lease_of(config)))


def _while_made(config: WorkspaceConfig) -> WorkspaceConfig:
    """Returns a configuration by whose times a workspace lives while it is being made: its own begin afterwards.

    All that ends it is a lease, as long as the shortest of them but long enough to be reached in.
    """
    own = [each for each in (config.lease, config.idle_timeout, config.max_lifetime) if each is not None]
    return replace(config, lease=max(min(own), _LEAST_WHILE_MADE), idle_timeout=None, max_lifetime=None)


async def _kept_meanwhile(
    session: GuestSession, lease: float, left: float, making: Coroutine[object, object, _T]
) -> _T:
    """Awaits a part of making a workspace, and renews its lease meanwhile; not any more when it has returned.

    Args:
        session: The tie to its guest.
        lease: Seconds to renew it by.
        left: Seconds that are left of it.
        making: The part. It is cancelled when the workspace is lost.
    """
    task = asyncio.create_task(making)
    try:
        while not (await asyncio.wait([task], timeout=max(min(left, lease), _LEAST_LEFT) / _RENEWALS))[0]:
            with contextlib.suppress(UnavailableError):
                renewal = {"op": "lease", "ttl_ms": round(lease * 1000)}
                told = await session.call_for(renewal, payloads.lease_left)
                left = lease if told is None else told
    except BaseException:
        await finish(_ended(task))
        raise
    return task.result()


async def _ended(task: asyncio.Task[_T]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _first_answer(
    session: GuestSession, place: Place, meanwhile: WorkspaceConfig
) -> tuple[Isolation, bool, float]:
    """Asks a new guest what it finds around it, again where a busy engine had not let it answer in time.

    Returns:
        What it has found, whether its kernel is gVisor's, and the seconds that are left of its lease for being made.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + FIRST_ANSWER

    def parse(value: dict[str, object]) -> tuple[Isolation, bool, float]:
        left = payloads.lease_left(value)
        return (
            payloads.isolation(value, place.runtime),
            payloads.in_gvisor(value),
            meanwhile.lease if left is None else left,
        )

    while True:
        try:
            return await session.call_for({"op": "info"}, parse)
        except ProviderUnavailableError:
            raise
        except UnavailableError:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(_FIRST_ANSWER_PAUSE)


async def _begun(session: GuestSession, config: WorkspaceConfig, given: Mapping[str, str], sealed: str) -> float:
    """Has a workspace's times begin, with its secrets and record; returns the seconds that are left of its lease."""
    claim = {"op": "claim", **terms(config), "values": dict(given)}
    try:
        left = await session.call_for({**claim, "record": sealed}, payloads.lease_left, since=4)
    except InvalidArgumentError:  # one frame has not room for all that there may be of both
        left = await session.call_for({**claim, "record": ""}, payloads.lease_left, since=4)
        await session.call({"op": "remember", "record": sealed})
    return config.lease if left is None else left


async def _discard(provider: Provider, place: Place, session: GuestSession) -> None:
    await session.aclose()
    with contextlib.suppress(IsolationError):
        await provider.destroy(place)
