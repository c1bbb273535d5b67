"""What a service holds is what is written down and what exists: at its start, and again every minute."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping

from agentic_isolation.errors import IsolationError
from agentic_isolation.models import WorkspaceState
from agentic_isolation_service.core.adoption import Adoption
from agentic_isolation_service.core.counts import Counts
from agentic_isolation_service.core.creation import Creations
from agentic_isolation_service.core.holdings import Holdings
from agentic_isolation_service.core.pools import Pools
from agentic_isolation_service.core.ports import Place, Provider
from agentic_isolation_service.core.providers import Providers
from agentic_isolation_service.core.records import Registry, WorkspaceRecord
from agentic_isolation_service.core.removal import Removals

_AT_A_TIME = 16
"""Guests that are asked whose they are before the next one is."""
_TURN = 0.5
"""Seconds after which those that have all not answered hold the next ones up no longer."""
_START_PATIENCE = 15.0
"""Seconds that a start waits for guests to say whose they are. Those that do so later are taken up then."""
_log = logging.getLogger(__name__)


class Reconciliation:
    """Takes up the workspaces and the pools' places of the service's earlier processes.

    Args:
        providers: Where places exist.
        registry: Where workspaces are written down.
        adoption: What brings both together for one workspace.
        holdings: What workspaces are taken up into.
        pools: What places are taken up into that are nobody's.
        creations: What is being made, which nobody else touches.
        removals: What is being removed, likewise.
        counts: Where what is taken up is counted.
    """

    def __init__(
        self,
        providers: Providers,
        registry: Registry,
        adoption: Adoption,
        holdings: Holdings,
        pools: Pools,
        creations: Creations,
        removals: Removals,
        counts: Counts,
    ) -> None:
        self._providers = providers
        self._registry = registry
        self._adoption = adoption
        self._holdings = holdings
        self._pools = pools
        self._creations = creations
        self._removals = removals
        self._counts = counts
        self._adopting: asyncio.Task[None] | None = None

    async def take_up(self) -> None:
        """Takes up what is written down, then removes what does not exist any more, or never came to be.

        What is not written down is asked whose it is: for so long, and then in the background, until `aclose`.
        """
        for record in await self._registry.load():
            self._take_up_one(record)
        found = await self._living(untold=logging.WARNING)
        for provider, living in found.items():
            for held in self._holdings:
                if held.info.provider == provider.name and held.info.id not in living:
                    _log.info("a workspace has ended meanwhile", extra={"workspace_id": held.info.id})
                    self._holdings.reap(held)
        self._adopting = asyncio.create_task(self._adopt_all(found), name="adopt-workspaces")
        done, _ = await asyncio.wait([self._adopting], timeout=_START_PATIENCE)
        if done:
            await self._adopting
        else:
            _log.warning("places that nobody has written down do not answer; they are taken up when they do")

    async def look(self) -> None:
        """Takes up what exists and is not held, once what the start has begun with has come to its end."""
        if self._adopting is not None:
            await asyncio.wait([self._adopting])
            adopting, self._adopting = self._adopting, None
            await adopting
        await self._adopt_all(await self._living())

    async def aclose(self) -> None:
        """Takes nothing up any longer; may be called twice."""
        if self._adopting is not None:
            self._adopting.cancel()
            await asyncio.gather(self._adopting, return_exceptions=True)

    async def _adopt_all(self, found: Mapping[Provider, frozenset[str]]) -> None:
        for provider, living in found.items():
            await self._adopt(provider, living)

    def _take_up_one(self, record: WorkspaceRecord) -> None:
        info = record.info
        if info.provider not in self._providers:
            _log.warning("nothing here makes %s workspaces", info.provider, extra={"workspace_id": info.id})
            return
        provider = self._providers.get(info.provider)
        held = self._adoption.held(provider, record)
        if info.state is WorkspaceState.READY and not record.pool:
            self._counts.of(provider.name).taken_up += 1
            self._holdings.hold(held)
        elif info.state is not WorkspaceState.READY or not self._pools.take_up(provider, held):
            self._holdings.reap(held)

    async def _living(self, untold: int = logging.DEBUG) -> dict[Provider, frozenset[str]]:
        """Returns the workspaces whose places exist, of each provider that can tell; `untold` logs who cannot."""
        living = {}
        for provider in self._providers:
            try:
                living[provider] = await provider.list()
            except IsolationError as error:
                _log.log(untold, "cannot see yet which %s workspaces are there: %s", provider.name, error)
        return living

    async def _adopt(self, provider: Provider, living: frozenset[str]) -> None:
        """Takes up what of these is not held, several at a time. Those that do not answer are waited for together."""
        unknown = living - self._holdings.ids - self._creations.under_way.keys() - self._pools.ids
        asked: set[asyncio.Task[None]] = set()
        try:
            async with asyncio.TaskGroup() as group:
                for workspace_id in unknown:
                    asked.add(group.create_task(self._adopt_one(provider, workspace_id)))
                    if len(asked) == _AT_A_TIME:
                        done, asked = await asyncio.wait(asked, timeout=_TURN, return_when=asyncio.FIRST_COMPLETED)
                        if not done:
                            asked = set()
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _adopt_one(self, provider: Provider, workspace_id: str) -> None:
        if workspace_id in self._removals:
            return
        found = await self._adoption.unknown(provider, workspace_id)
        if isinstance(found, Place):
            _log.warning("a workspace that was not finished is removed", extra={"workspace_id": workspace_id})
            self._removals.begin(workspace_id, functools.partial(provider.destroy, found))
        elif found is None:
            return
        elif found.pool:
            # Only its guest says that nobody had it. One that is somebody's could show what it was told before.
            self._holdings.reap(found)
        else:
            self._holdings.hold(found)
