"""The pools of a service: places that are ready before anybody asks for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from agentic_isolation.errors import (
    InvalidArgumentError,
    IsolationError,
    IsolationUnavailableError,
    RegistryUnavailableError,
)
from agentic_isolation.models import PoolInfo, WorkspaceConfig
from agentic_isolation_service.core import validation
from agentic_isolation_service.core.adoption import Adoption
from agentic_isolation_service.core.creation import Creations
from agentic_isolation_service.core.pool import POOL_LEASE, Pool, PooledPlace
from agentic_isolation_service.core.ports import Provider
from agentic_isolation_service.core.quotas import Commitment, commitment_of
from agentic_isolation_service.core.refilling import Refiller
from agentic_isolation_service.core.removal import Removals
from agentic_isolation_service.core.templates import PoolTemplate
from agentic_isolation_service.core.workspace import HeldWorkspace

_CLAIM_PATIENCE = 2.0
"""Seconds for which ready places are tried, before a workspace is made as if there were no pool."""
_LOOK_TIMEOUT = 30.0
"""Seconds that a provider has to say what an image stands for."""
_UNKNOWN = "unknown"
"""No image's id."""
_log = logging.getLogger(__name__)


class Pools:
    """All pools of one service. Their places are nobody's: no request reaches them before one claims them.

    Args:
        templates: What they are configured by.
        provider: Returns a provider by its name.
        creations: What makes and claims places.
        adoption: What asks places of earlier processes whose they are.
        removals: What removes places.
        room: Whether there may be one more place, that so much is promised to.
    """

    def __init__(
        self,
        templates: Sequence[PoolTemplate],
        *,
        provider: Callable[[str], Provider],
        creations: Creations,
        adoption: Adoption,
        removals: Removals,
        room: Callable[[Commitment], bool],
    ) -> None:
        self._pools = [Pool(template) for template in templates]
        self._provider = provider
        self._creations = creations
        self._adoption = adoption
        self._removals = removals
        self._places: dict[str, PooledPlace] = {}
        self._room = room
        self._refiller = Refiller(
            self._pools, refill=self._refill, renovate=self._renovate, trim=self._trim, room=self._has_room
        )  # fmt: skip
        self._refilling: asyncio.Task[None] | None = None
        self._stopped = False
        self.cold_create = self._refiller.cold_create

    @property
    def kept(self) -> Commitment:
        """What is promised to the places that are there."""
        return sum((place.held.commitment for place in self._places.values()), Commitment())

    @property
    def ids(self) -> AbstractSet[str]:
        """The ids of all places that are in a pool, or are being removed from one."""
        return self._places.keys()

    def check(self) -> None:
        """Raises InvalidArgumentError where a template asks for what its provider cannot do; makes no place."""
        for position, pool in enumerate(self._pools):
            config = pool.template.config
            try:
                validation.check_config(config)
                self._provider(config.provider).check(config)
            except (InvalidArgumentError, IsolationUnavailableError) as error:
                raise InvalidArgumentError(error.message, field=f"pool[{position}].{error.field}") from error

    def start(self) -> None:
        """Begins to fill them."""
        if self._pools:
            self._refilling = asyncio.create_task(self._refiller.run(), name="refill-pools")

    async def stop(self) -> None:
        """Fills them no longer; what is half made is removed. May be called twice."""
        self._stopped = True
        if self._refilling is not None:
            self._refilling.cancel()
            await asyncio.gather(self._refilling, return_exceptions=True)

    def remove_all(self) -> None:
        """Begins to remove all places."""
        for place in self._places.values():
            self._discard(place)

    async def leave(self) -> None:
        """Lets go of all places, for the service's next process."""
        await asyncio.gather(*(place.leave() for place in self._places.values()))

    def infos(self) -> list[PoolInfo]:
        """Returns the pools as they are now."""
        now = _now()
        return [pool.info(now, refilling=pool is self._refiller.current) for pool in self._pools]

    async def claim(
        self, provider: Provider, config: WorkspaceConfig, request_id: str, owner: str
    ) -> HeldWorkspace | None:
        """Returns a workspace that was ready, and is the owner's now, or None where one has to be made.

        A place that does not take the claim is removed, and so is that of a claim that is cancelled. Where a pool has
        no other one, the places of the next pool are tried that would do.

        Raises:
            RegistryUnavailableError: It cannot be written down.
        """
        pools = [pool for pool in self._of(provider, config) if pool.template.is_for(owner)]
        if not pools:
            return None
        pools.sort(key=lambda pool: not pool.ready)
        asked = pools[0]
        asked.demand.ask(_now())
        try:
            async with asyncio.timeout(_CLAIM_PATIENCE):
                for pool in pools:
                    while (place := pool.take()) is not None:
                        if await self._claimed(place, config, request_id, owner):
                            pool.count(hit=True)
                            return place.held
        except TimeoutError:
            pass
        finally:
            self._refiller.wake()
        asked.count(hit=False)
        return None

    def take_up(self, provider: Provider, held: HeldWorkspace) -> bool:
        """Takes a place of an earlier process of the service into a pool that has such; False: there is none.

        Its guest is asked whether it is still nobody's: a claim may have been cut short.
        """
        pools = self._of(provider, held.config)
        if not pools:
            return False
        pool = next((pool for pool in pools if pool.template.name == held.pool), pools[0])
        self._keep(pool, PooledPlace(held, held.image_id or _UNKNOWN, lambda: self._adoption.is_unclaimed(held)))
        pool.demand.expect(len(pool.ready) + len(pool.entering), _now())
        return True

    def evict(self) -> PooledPlace | None:
        """Begins to remove a place of the pool that has most, to make room for a workspace that is made without one.

        Returns it; None: there is none.
        """
        pool = max(self._pools, key=lambda pool: len(pool.ready), default=None)
        place = None if pool is None else pool.take()
        if place is not None:
            self._discard(place)
        return place

    def _of(self, provider: Provider, config: WorkspaceConfig) -> list[Pool]:
        """Returns the pools whose places are as good as one that would be made of a configuration."""
        own = [pool for pool in self._pools if pool.template.config.provider == provider.name]
        if not own:
            return []
        shape = provider.shape(config)
        return [pool for pool in own if provider.shape(pool.template.config) == shape]

    async def _claimed(self, place: PooledPlace, config: WorkspaceConfig, request_id: str, owner: str) -> bool:
        with self._creations.counted(place.id):
            try:
                await place.release()
                await self._creations.claim(place.held, config, request_id, owner)
            except BaseException as error:
                # Nobody may have it now: what was asked of the guest may have been done.
                self._discard(place)
                if isinstance(error, RegistryUnavailableError) or not isinstance(error, IsolationError):
                    raise
                _log.warning("a pool's place could not be claimed: %s", error, extra={"workspace_id": place.id})
                return False
            del self._places[place.id]
            return True

    def _has_room(self, pool: Pool) -> bool:
        config = pool.template.config
        return self._room(commitment_of(self._provider(config.provider).with_defaults(config)))

    def _keep(self, pool: Pool, place: PooledPlace) -> None:
        self._places[place.id] = place
        pool.entering.add(place)

        def enter() -> None:
            pool.enter(place)
            self._refiller.wake()

        def drop() -> None:
            if self._stopped:
                return  # the service's next process finds it out
            _log.info("a pool's place has ended", extra={"workspace_id": place.id})
            pool.drop(place)
            self._discard(place)
            self._refiller.wake()

        place.keep(enter, drop)

    def _discard(self, place: PooledPlace) -> None:
        self._removals.begin(place.id, lambda: place.destroy(lambda: self._forget(place)))

    def _forget(self, place: PooledPlace) -> None:
        self._places.pop(place.id, None)

    def _trim(self, pool: Pool, count: int) -> None:
        for _ in range(count):
            if (place := pool.take()) is not None:
                self._discard(place)

    async def _refill(self, pool: Pool) -> None:
        """Makes a place. A reaper: it reports what fails."""
        config = replace(pool.template.config, lease=POOL_LEASE)
        provider = self._provider(config.provider)
        began = _now()
        try:
            image_id = await self._image_id(pool)
            held = await self._creations.make_for_pool(provider, config, pool.template.name, image_id)
        except (IsolationError, TimeoutError) as error:
            why = str(error) or f"what its image stands for is not told within {_LOOK_TIMEOUT:g} s"
            pool.failed(why, _now())
        except Exception:  # noqa: BLE001  a reaper
            _log.exception("a place could not be made for pool %s", pool.template.name)
            pool.failed("a defect of the service; see its log", _now())
        else:
            pool.made(_now() - began)
            self._keep(pool, PooledPlace(held, image_id))

    async def _renovate(self, pool: Pool) -> None:
        """Removes places whose image has come to be another one. A reaper: what cannot be told is asked again."""
        if not pool.ready and not pool.entering:
            return
        try:
            await self._image_id(pool)
        except (IsolationError, TimeoutError):
            pass
        except Exception:  # noqa: BLE001  a reaper
            _log.exception("it cannot be told whether the image of pool %s has moved", pool.template.name)

    async def _image_id(self, pool: Pool) -> str:
        """Returns what a pool's image stands for now, and has the places removed that were made of another one."""
        config = pool.template.config
        async with asyncio.timeout(_LOOK_TIMEOUT):
            image_id = await self._provider(config.provider).image_id(config)
        for place in [*pool.ready, *pool.entering] if image_id else []:
            place.image_id = place.image_id or image_id  # it was not there before that place was made
            if place.image_id != image_id:
                pool.drop(place)
                self._discard(place)
        return image_id


def _now() -> float:
    return asyncio.get_running_loop().time()
