"""The workspaces of a service: made, found, renewed and removed here, by whichever way in they are asked for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import (
    CapacityError,
    InvalidArgumentError,
    IsolationError,
    UnavailableError,
    WorkspaceNotFoundError,
)
from agentic_isolation.images import PullEvent
from agentic_isolation.models import PoolInfo, ProviderInfo, WorkspaceConfig, WorkspaceInfo, WorkspaceState
from agentic_isolation_service.core import validation
from agentic_isolation_service.core.adoption import Adoption, keep_going
from agentic_isolation_service.core.creation import Creations
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.pages import page_of
from agentic_isolation_service.core.pools import Pools
from agentic_isolation_service.core.ports import Provider
from agentic_isolation_service.core.records import Registry, WorkspaceRecord
from agentic_isolation_service.core.removal import Removals
from agentic_isolation_service.core.requests import SharedCalls
from agentic_isolation_service.core.templates import PoolTemplate
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
    ) -> None:
        self.max_workspaces = max_workspaces
        self.request_window = request_window
        self._makers = providers
        self._lasting = lasting
        self._registry = registry
        self._providers: dict[str, Provider] = {}
        self._held: dict[str, HeldWorkspace] = {}
        self._creates: SharedCalls[WorkspaceInfo] = SharedCalls()
        self._creations = Creations(registry, identity, request_window=request_window)
        self._adoption = Adoption(registry, identity)
        self._removals = Removals()
        self._pools = Pools(
            pools,
            provider=self._provider,
            creations=self._creations,
            adoption=self._adoption,
            removals=self._removals,
            room=lambda: self._count() < self.max_workspaces,
        )
        self._reconciling: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        try:
            self._pools.check()
            if self._lasting:
                await self._take_up()
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
            for held in self._held.values():
                self._reap(held)
            self._pools.remove_all()
        await self._leave()

    async def _leave(self) -> None:
        if self._reconciling is not None:
            self._reconciling.cancel()
            await asyncio.gather(self._reconciling, return_exceptions=True)
        await self._pools.stop()
        await self._removals.aclose()
        await self._pools.leave()
        await asyncio.gather(*(held.leave() for held in self._held.values()))
        await asyncio.gather(*(provider.aclose() for provider in self._providers.values()))

    async def create(self, config: WorkspaceConfig, request_id: str = "") -> WorkspaceInfo:
        """Makes a workspace and returns when it runs commands. Cancelled, it leaves nothing behind.

        Args:
            config: How to make it.
            request_id: A repeat returns the first call's workspace as it is now.

        Raises:
            InvalidArgumentError, IsolationUnavailableError: What is asked for makes no sense, or cannot be had.
            WorkspaceNotFoundError: It is a repeat, and the first call's workspace is gone.
            ProviderUnavailableError, CapacityError, UnavailableError: Not now.
        """
        validation.check_config(config)
        if request_id:
            validation.check_request_id(request_id)
        provider = self._provider(config.provider)
        provider.check(config)
        call = self._creates.join(request_id, config, lambda: self._create(provider, config, request_id))
        try:
            return await call.wait()
        except asyncio.CancelledError:
            if call.unwanted is not None:
                await finish(self._take_back(call.unwanted))
            raise

    def get(self, workspace_id: str) -> HeldWorkspace:
        """Returns a workspace.

        Raises:
            InvalidArgumentError: The id is empty.
            WorkspaceNotFoundError: There is none of that id, or none any more.
        """
        if not workspace_id:
            raise InvalidArgumentError("name the workspace", field="workspace_id")
        held = self._held.get(workspace_id)
        if held is None:
            raise WorkspaceNotFoundError(
                f"there is no workspace {workspace_id!r}: it was destroyed, its lease has run out, or it never existed"
            )
        return held

    def page(self, labels: Mapping[str, str], limit: int, after: str) -> tuple[list[WorkspaceInfo], str]:
        """Returns a page of the workspaces that have all of `labels`, oldest first, and the next page's token.

        Raises:
            InvalidArgumentError: The limit is not from 1 to 1,000, or the token is none that was given out.
        """
        infos = [held.info for held in self._held.values()]
        return page_of((info for info in infos if labels.items() <= info.labels.items()), limit, after)

    async def destroy(self, workspace_id: str) -> None:
        """Kills everything in a workspace and removes it. Goes on in the background when it fails or is cancelled.

        Raises:
            WorkspaceNotFoundError: There is none of that id.
            UnavailableError: It cannot be removed for now.
        """
        held = self.get(workspace_id)
        try:
            await self._destroy(held)
        except (UnavailableError, asyncio.CancelledError):
            self._reap(held)
            raise

    def pull_image(self, provider: str, image: str) -> AsyncGenerator[PullEvent, None]:
        """Makes sure that a provider has an image, and yields how its download goes; as Provider.pull.

        Raises:
            InvalidArgumentError: There is no such provider, or it has no images.
            ImageUnavailableError, ProviderUnavailableError: While iterating: it cannot be had, or not now.
        """
        return self._provider(provider).pull(image)

    def describe_pools(self) -> list[PoolInfo]:
        """Returns what is kept ready."""
        return self._pools.infos()

    async def describe_providers(self) -> list[ProviderInfo]:
        """Returns what each provider can give on this host."""
        return [await self._provider(name).describe() for name in self._makers]

    def _provider(self, name: str) -> Provider:
        if name not in self._makers:
            known = " or ".join(repr(known) for known in self._makers)
            raise InvalidArgumentError(f"there is no provider {name!r}; use {known}", field="provider")
        if name not in self._providers:
            self._providers[name] = self._makers[name]()
        return self._providers[name]

    async def _create(self, provider: Provider, config: WorkspaceConfig, request_id: str) -> WorkspaceInfo:
        if request_id and (workspace_id := await self._creations.find(config, request_id)):
            return self.get(workspace_id).info
        self._refuse_when_closing()
        if len(self._held) + self._creations.asked_count >= self.max_workspaces:
            raise CapacityError(f"the service has {self.max_workspaces} workspaces, as many as it may; destroy some")
        held = await self._pools.claim(provider, config, request_id)
        if held is None:
            if self._count() >= self.max_workspaces:
                self._pools.evict()
            with self._pools.cold_create():
                held = await self._creations.make(provider, config, request_id)
        self._hold(held)
        _log.info("workspace created", extra={"workspace_id": held.info.id, "provider": provider.name})
        return held.info

    def _count(self) -> int:
        """Returns how many places there are, those of the pools included."""
        return len(self._held) + len(self._creations.under_way) + len(self._pools.ids)

    def _refuse_when_closing(self) -> None:
        if self._closed:
            raise UnavailableError("the service is closing")

    def _hold(self, held: HeldWorkspace) -> None:
        self._held[held.info.id] = held
        held.watch(lambda: self._expire(held))

    async def _take_up(self) -> None:
        """Takes up what is written down, then removes what does not exist any more, or never came to be."""
        for record in await self._registry.load():
            self._take_up_one(record)
        for name, living in (await self._living()).items():
            for workspace_id, held in self._held.items():
                if held.info.provider == name and workspace_id not in living:
                    _log.info("a workspace has ended meanwhile", extra={"workspace_id": workspace_id})
                    self._reap(held)
            await self._adopt(name, living)

    def _take_up_one(self, record: WorkspaceRecord) -> None:
        info = record.info
        if info.provider not in self._makers:
            _log.warning("nothing here makes %s workspaces", info.provider, extra={"workspace_id": info.id})
            return
        provider = self._provider(info.provider)
        held = self._adoption.held(provider, record)
        if info.state is WorkspaceState.READY and not record.pool:
            self._hold(held)
        elif info.state is not WorkspaceState.READY or not self._pools.take_up(provider, held):
            self._reap(held)

    async def _reconcile(self) -> None:
        if self._lasting:
            for name, living in (await self._living()).items():
                await self._adopt(name, living)
        await self._registry.prune(self.request_window)

    async def _living(self) -> dict[str, frozenset[str]]:
        """Returns the workspaces whose places exist, of each provider that can tell."""
        living = {}
        for name in self._makers:
            try:
                living[name] = await self._provider(name).list()
            except IsolationError as error:
                _log.debug("cannot list the places of %s: %s", name, error)
        return living

    async def _adopt(self, name: str, living: frozenset[str]) -> None:
        provider = self._provider(name)
        for workspace_id in living - self._held.keys() - self._creations.under_way.keys() - self._pools.ids:
            if workspace_id in self._removals or not (held := await self._adoption.unknown(provider, workspace_id)):
                continue
            if not held.pool:
                self._hold(held)
            elif not self._pools.take_up(provider, held, sure=True):
                self._reap(held)

    async def _take_back(self, info: WorkspaceInfo) -> None:
        with contextlib.suppress(WorkspaceNotFoundError):
            await asyncio.wait([self._reap(self.get(info.id))])
            await self._registry.remove(info.id, keep_request=False)

    async def _destroy(self, held: HeldWorkspace) -> None:
        await held.destroy(lambda: self._forget(held))

    def _forget(self, held: HeldWorkspace) -> None:
        self._held.pop(held.info.id, None)

    def _expire(self, held: HeldWorkspace) -> None:
        _log.info("a workspace's time is over", extra={"workspace_id": held.info.id})
        self._reap(held)

    def _reap(self, held: HeldWorkspace) -> asyncio.Task[None]:
        return self._removals.begin(held.info.id, lambda: self._destroy(held))
