"""Making a workspace: every step is undone when a later one fails, and found again when the service was killed."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import IsolationError, ProviderUnavailableError, UnavailableError
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

FIRST_ANSWER = 40.0
"""Seconds after which a new guest that has not answered is asked no more."""
_FIRST_ANSWER_PAUSE = 0.2
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
        key = self._identity.guest_key(workspace_id)
        place = await provider.create(PlaceSpec(workspace_id, config, key, self._request_window))
        counts = self._counts.of(provider.name).guests
        judge = judge_of(provider, place, config)
        session = GuestSession(workspace_id, key, lambda: provider.connect(place), counts, judge=judge)
        try:
            measured, in_gvisor, expires_at = await _first_answer(session, place, config)
            isolation = await provider.isolation(place, config, measured, in_gvisor=in_gvisor)
            info = replace(
                record.info,
                state=WorkspaceState.READY,
                lease_expires_at=expires_at,
                isolation=isolation,
                host_path=place.host_path,
            )
            ready = replace(record, info=info, boot_id=session.boot_id)
            if given:
                await session.call({"op": "secrets", "values": dict(given)}, since=3)
            # So that the workspace is known to be ours even if the registry is lost.
            await session.call({"op": "remember", "record": self._sealed(ready)})
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


async def _first_answer(
    session: GuestSession, place: Place, config: WorkspaceConfig
) -> tuple[Isolation, bool, dt.datetime]:
    """Asks a new guest what it finds around it, again where a busy engine had not let it answer in time.

    Returns:
        What it has found, whether its kernel is gVisor's, and when its lease ends, which began with it.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + FIRST_ANSWER

    def parse(value: dict[str, object]) -> tuple[Isolation, bool, dt.datetime]:
        left, lease = payloads.lease_left(value), _lease_of(config)
        expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=lease if left is None else min(left, lease))
        return payloads.isolation(value, place.runtime), payloads.in_gvisor(value), expires_at

    while True:
        try:
            return await session.call_for({"op": "info"}, parse)
        except ProviderUnavailableError:
            raise
        except UnavailableError:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(_FIRST_ANSWER_PAUSE)


async def _discard(provider: Provider, place: Place, session: GuestSession) -> None:
    await session.aclose()
    with contextlib.suppress(IsolationError):
        await provider.destroy(place)
