"""The workspaces of a service: made, found, renewed and removed here, by whichever way in they are asked for."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import CapacityError, IsolationError, NotAllowedError, UnavailableError
from agentic_isolation.images import PullEvent
from agentic_isolation.models import PoolInfo, ProviderInfo, WorkspaceConfig, WorkspaceInfo, WorkspaceState
from agentic_isolation_service.core import descriptors, validation
from agentic_isolation_service.core.admission import Admission
from agentic_isolation_service.core.adoption import Adoption, keep_going
from agentic_isolation_service.core.caller import Caller
from agentic_isolation_service.core.counts import Counts
from agentic_isolation_service.core.creation import Creations
from agentic_isolation_service.core.holdings import Holdings
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.pages import page_of, replica_of
from agentic_isolation_service.core.pools import Pools
from agentic_isolation_service.core.ports import Provider
from agentic_isolation_service.core.providers import Providers
from agentic_isolation_service.core.quotas import UNBOUND, Commitment, Quotas, commitment_of
from agentic_isolation_service.core.reconciliation import Reconciliation
from agentic_isolation_service.core.records import Registry
from agentic_isolation_service.core.removal import Removals
from agentic_isolation_service.core.replicas import Replica
from agentic_isolation_service.core.requests import SharedCalls
from agentic_isolation_service.core.templates import PoolTemplate
from agentic_isolation_service.core.tenants import Tenants
from agentic_isolation_service.core.workspace import HeldWorkspace

DEFAULT_MAX_WORKSPACES = 1000
DEFAULT_REQUEST_WINDOW = 600.0
"""Seconds."""
RECONCILE_INTERVAL = 60.0
"""Seconds."""
_log = logging.getLogger(__name__)


class Workspaces:
    """All workspaces of one service.

    Entered, it takes up those that are written down, and watches leases. Left, it destroys what it holds, or leaves it
    to the service's next process.

    Args:
        providers: What workspaces can be made from, by name; each is made when it is first asked for.
        registry: Where workspaces are written down.
        identity: Whose they are.
        lasting: Leave workspaces when this is left, in place of destroying them.
        max_workspaces: How many there may be at a time.
        pools: What is kept ready for requests to come.
        request_window: Seconds that requests are remembered after their end.
        tenants: Whose workspaces there are, and what each tenant may have.
        quotas: What tenants, and all of them together, may have.
        replica: Which of the services behind one proxy this is.
    """

    def __init__(
        self,
        providers: Mapping[str, Callable[[], Provider]],
        registry: Registry,
        identity: Identity,
        *,
        lasting: bool = False,
        max_workspaces: int = DEFAULT_MAX_WORKSPACES,
        pools: Sequence[PoolTemplate] = (),
        request_window: float = DEFAULT_REQUEST_WINDOW,
        tenants: Tenants | None = None,
        quotas: Quotas = UNBOUND,
        replica: Replica | None = None,
    ) -> None:
        self.max_workspaces = max_workspaces
        self.request_window = request_window
        self.counts = Counts()
        self._tenants = tenants if tenants is not None else Tenants()
        self._replica = replica or Replica()
        self._lasting = lasting
        self._registry = registry
        self._providers = Providers(providers)
        self._creates: SharedCalls[WorkspaceInfo] = SharedCalls()
        self._creations = Creations(
            registry, identity, self._replica, request_window=request_window, counts=self.counts
        )
        self._removals = Removals()
        self._holdings = Holdings(self._removals, self.counts, self._replica)
        self._admission = Admission(quotas, self._holdings, time.monotonic)
        adoption = Adoption(registry, identity, self.counts)
        self._pools = Pools(
            pools,
            provider=self._providers.get,
            creations=self._creations,
            adoption=adoption,
            removals=self._removals,
            room=self._has_room,
        )
        self._reconciliation = Reconciliation(
            self._providers,
            registry,
            adoption,
            self._holdings,
            self._pools,
            self._creations,
            self._removals,
            self.counts,
        )
        self._reconciling: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        try:
            self._tenants.check(self._providers)
            self._pools.check()
            if self._lasting:
                await self._reconciliation.take_up()
            self._pools.start()
            self._reconciling = asyncio.create_task(
                keep_going(RECONCILE_INTERVAL, self._reconcile), name="reconcile-workspaces"
            )
        except BaseException:
            await finish(self._leave())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        await self._pools.stop()
        creations = self._creations.under_way.values()
        for creation in creations:
            creation.cancel()
        if creations:
            await asyncio.wait(creations)  # their callers may have gone already
        if not self._lasting:
            for held in self._holdings:
                self._holdings.reap(held)
            self._pools.remove_all()
        await self._leave()

    async def _leave(self) -> None:
        if self._reconciling is not None:
            self._reconciling.cancel()
            await asyncio.gather(self._reconciling, return_exceptions=True)
        await self._reconciliation.aclose()
        await self._pools.stop()
        await self._removals.aclose()
        await self._pools.leave()
        await asyncio.gather(*(held.leave() for held in self._holdings))
        await self._providers.aclose()

    async def create(self, caller: Caller, config: WorkspaceConfig, request_id: str = "") -> WorkspaceInfo:
        """Makes a workspace and returns when it runs commands. Cancelled, it leaves nothing behind.

        Args:
            caller: Whose it will be.
            config: How to make it.
            request_id: A repeat returns the first call's workspace as it is now.

        Raises:
            InvalidArgumentError, IsolationUnavailableError: What is asked for makes no sense, or cannot be had.
            NotAllowedError: The caller may not have it.
            WorkspaceNotFoundError: It is a repeat, and the first call's workspace is gone.
            ProviderUnavailableError, CapacityError, QuotaError, UnavailableError: Not now.
        """
        validation.check_config(config)
        if request_id:
            validation.check_request_id(request_id)
        provider = self._providers.get(config.provider)
        provider.check(config)
        self._tenants.policy_of(caller).check(provider.with_defaults(config))
        while True:
            call = self._creates.join(
                caller.tenant, request_id, config, lambda: self._create(caller, provider, config, request_id)
            )
            try:
                info = await call.wait()
            except asyncio.CancelledError:
                if call.unwanted is not None:
                    await finish(self._take_back(call.unwanted))
                raise
            held = self._holdings.get(info.id)
            if held is None or not held.disowned:  # else it was found just before it was taken back
                if held is not None:
                    held.told = True
                return info

    @property
    def replica_name(self) -> str:
        """What this service is called among those behind one proxy; empty: it is the only one."""
        return self._replica.name

    def get(self, caller: Caller, workspace_id: str) -> HeldWorkspace:
        """Returns a workspace that is the caller's to use; see Holdings.find, also for what it raises."""
        return self._holdings.find(caller, workspace_id)

    def page(
        self, caller: Caller, labels: Mapping[str, str], limit: int, after: str
    ) -> tuple[list[WorkspaceInfo], str]:
        """Returns a page of the caller's workspaces with all of `labels`, oldest first, and the next page's token.

        Raises:
            InvalidArgumentError: The limit is not from 1 to 1,000, or the token is none that was given out.
            WrongReplicaError: The token is another replica's.
        """
        if after:
            self._replica.check_token(replica_of(after))
        infos = [held.info for held in self._holdings.seen_by(caller)]
        labelled = (info for info in infos if labels.items() <= info.labels.items())
        return page_of(labelled, limit, after, self._replica.name)

    async def renew(self, caller: Caller, workspace_id: str, seconds: float | None = None) -> dt.datetime:
        """Sets a workspace's lease to end so many seconds from now and returns when that is; see HeldWorkspace.renew.

        Raises:
            InvalidArgumentError: Out of range.
            NotAllowedError: Longer than the caller's leases may be.
            WorkspaceNotFoundError: The caller has none of that id.
            WorkspaceLostError: The guest is gone.
        """
        held = self.get(caller, workspace_id)
        try:
            self._tenants.policy_of(caller).check_lease(held.config.lease if seconds is None else seconds)
        except NotAllowedError as error:
            if seconds is None:  # what it was made with, and its client goes on asking for without looking
                _log.warning("a lease is not renewed any more: %s", error, extra={"workspace_id": workspace_id})
            raise
        return await held.renew(seconds)

    async def destroy(self, caller: Caller, workspace_id: str) -> None:
        """Kills everything in a workspace and removes it. Goes on in the background when it fails or is cancelled.

        Raises:
            WorkspaceNotFoundError: The caller has none of that id.
            UnavailableError: It cannot be removed for now.
        """
        held = self.get(caller, workspace_id)
        try:
            await self._holdings.destroy(held)
        except (UnavailableError, asyncio.CancelledError):
            self._holdings.reap(held)
            raise

    def pull_image(self, caller: Caller, provider: str, image: str) -> AsyncGenerator[PullEvent, None]:
        """Makes sure that a provider has an image, and yields how its download goes; as Provider.pull.

        Raises:
            InvalidArgumentError: There is no such provider, or it has no images.
            NotAllowedError: The caller may not use it.
            ImageUnavailableError, ProviderUnavailableError: While iterating: it cannot be had, or not now.
        """
        found = self._providers.get(provider)
        policy = self._tenants.policy_of(caller)
        policy.check_provider(provider)
        policy.check_image(found.with_defaults(WorkspaceConfig(provider=provider, image=image or None)).image)
        return found.pull(image)

    def census(self) -> Counter[tuple[str, WorkspaceState, str]]:
        """Returns how many workspaces there are by provider, state and owner."""
        return Counter((held.provider, held.state, held.owner) for held in self._holdings)

    def describe_pools(self, caller: Caller) -> list[PoolInfo]:
        """Returns what is kept ready, to those who have the workspaces of all."""
        return self._pools.infos() if caller.admin else []

    async def describe_providers(self, caller: Caller) -> list[ProviderInfo]:
        """Returns what each provider that the caller may use can give on this host."""
        policy = self._tenants.policy_of(caller)
        return [await provider.describe() for provider in self._providers if policy.has_provider(provider.name)]

    async def _create(
        self, caller: Caller, provider: Provider, config: WorkspaceConfig, request_id: str
    ) -> WorkspaceInfo:
        owner = caller.tenant
        if request_id and (workspace_id := await self._creations.find(config, request_id, owner)):
            held = self._holdings.get(workspace_id)
            if held is None or not held.disowned:
                return self.get(caller, workspace_id).info
        self._refuse_when_closing()
        if len(self._holdings) + self._creations.asked_count >= self.max_workspaces:
            raise self._is_full(caller)
        began = asyncio.get_running_loop().time()
        with self._admission.of(owner, commitment_of(provider.with_defaults(config))):
            held = await self._pools.claim(provider, config, request_id, owner)
            pooled = held is not None
            if held is None:
                if not descriptors.is_room(self._creations.asked_count):
                    raise CapacityError(
                        "the service may open hardly any more files, and keeps the rest for connections; destroy some "
                        "workspaces, or raise the limit of open files that it is started with"
                    )
                self._make_room()
                with self._pools.cold_create():
                    held = await self._creations.make(provider, config, request_id, owner)
            self._holdings.hold(held)
        self.counts.of(provider.name).count_create(asyncio.get_running_loop().time() - began, pooled=pooled)
        _log.info("workspace created", extra={"workspace_id": held.info.id, "provider": provider.name})
        return held.info

    def _make_room(self) -> None:
        """Has places of pools removed where a workspace that is made without one needs the room."""
        if self._count() >= self.max_workspaces:
            self._pools.evict()
        kept = self._pools.kept
        while not self._admission.has_room(kept) and (place := self._pools.evict()) is not None:
            kept -= place.held.commitment

    def _has_room(self, wanted: Commitment) -> bool:
        """Returns whether a pool may have one more place, that so much is promised to."""
        if self._count() >= self.max_workspaces or not descriptors.is_room(self._creations.asked_count):
            return False
        return self._admission.has_room(self._pools.kept + wanted)

    def _count(self) -> int:
        """Returns how many places there are, those of the pools included."""
        return len(self._holdings) + len(self._creations.under_way) + len(self._pools.ids)

    def _is_full(self, caller: Caller) -> CapacityError:
        if not caller.admin:  # how many others have is not theirs to know
            return CapacityError("the service has no room for another workspace; destroy some, or try again later")
        return CapacityError(f"the service has {self.max_workspaces} workspaces, as many as it may; destroy some")

    def _refuse_when_closing(self) -> None:
        if self._closed:
            raise UnavailableError("the service is closing")

    async def _reconcile(self) -> None:
        if self._lasting:
            await self._reconciliation.look()
        await self._registry.prune(self.request_window)

    async def _take_back(self, info: WorkspaceInfo) -> None:
        """Removes a workspace that nobody was told of; in the background, where it cannot be removed for now."""
        held = self._holdings.get(info.id)
        if held is None or held.told:
            return
        await held.disown()
        try:
            await self._holdings.destroy(held)
        except IsolationError:
            self._holdings.reap(held)
