"""Bringing together what is written down and what exists: at a service's start, and again every minute.

The engines and the guests are the truth about what exists, the registry is the truth about whose it is. A place that
the registry does not know, because it was lost, is known by the sealed record that its guest remembers. One whose guest
was given no record was never finished, and nobody was told of it: its making failed when it could not be removed, or a
killed service's last words to an engine came to something after all. One that does not say is left to its lease.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from agentic_isolation.errors import IsolationError
from agentic_isolation_service.core.counts import Counts
from agentic_isolation_service.core.exhaustion import judge_of
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.ports import ByteStream, Place, Provider
from agentic_isolation_service.core.records import Registry, WorkspaceRecord
from agentic_isolation_service.core.validation import MAX_LEASE
from agentic_isolation_service.core.workspace import HeldWorkspace
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.session import GuestSession

_ANSWER_TIMEOUT = 10.0
"""Seconds that a guest has to say whose it is."""
_MAX_TOLD = 4096
"""Places that are remembered for not being told of again each minute."""
_log = logging.getLogger(__name__)


class Adoption:
    """Takes up the workspaces of the service's earlier processes.

    Args:
        registry: What they have written down.
        identity: Whose they are.
        counts: Where what goes on with them is counted.
    """

    def __init__(self, registry: Registry, identity: Identity, counts: Counts) -> None:
        self._counts = counts
        self._registry = registry
        self._identity = identity
        self._told: dict[str, None] = {}

    def held(self, provider: Provider, record: WorkspaceRecord) -> HeldWorkspace:
        """Returns a workspace that is written down, in this process's hands. Does no I/O: its guest may be gone."""
        info = record.info
        place = Place(info.id, runtime=info.isolation.runtime, host_path=info.host_path)
        provider.adopt(place)
        key, counts = self._identity.guest_key(info.id), self._counts.of(provider.name).guests
        judge = judge_of(provider, place, record.config)
        session = GuestSession(info.id, key, lambda: provider.connect(place), counts, record.boot_id, judge)
        held = HeldWorkspace(provider, place, session, record, self._registry)
        held.told = not record.pool
        return held

    async def unknown(self, provider: Provider, workspace_id: str) -> HeldWorkspace | Place | None:
        """Returns a workspace that is there and not written down.

        Or only its place, where it was never finished; or None where its guest does not say whose it is, or it has
        ended since it was listed: somebody may have destroyed it.
        """
        place = Place(workspace_id, runtime="")
        is_gone = False

        async def connect() -> ByteStream:
            nonlocal is_gone
            try:
                return await provider.connect(place)
            except OSError:
                is_gone = True
                raise

        # Not counted: what becomes of it is no workspace's.
        session = GuestSession(workspace_id, self._identity.guest_key(workspace_id), connect)
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                sealed, left = await session.call_for(
                    {"op": "info"}, lambda value: (payloads.record(value), payloads.lease_left(value))
                )
        except (IsolationError, TimeoutError) as error:
            why = str(error) or f"nothing came within {_ANSWER_TIMEOUT:g} s"
            if not is_gone:
                self._tell_once(workspace_id, f"a place does not answer: {why}")
            return None
        finally:
            await session.aclose()
        if not sealed and left is not None:  # guests that remember nothing do not say what is left, either
            return place
        record = self._unsealed(sealed)
        if record is None or (record.info.id, record.info.provider) != (workspace_id, provider.name):
            self._tell_once(workspace_id, "a place is left to its lease: nobody knows whose it is")
            return None
        if left is not None:  # the record is as old as the workspace, and knows of no renewal
            expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=min(left, MAX_LEASE))
            record = replace(record, info=replace(record.info, lease_expires_at=expires_at))
        await self._registry.put(record)
        self._counts.of(provider.name).adopted += 1
        _log.info("workspace found again", extra={"workspace_id": workspace_id})
        return self.held(provider, record)

    async def is_unclaimed(self, held: HeldWorkspace) -> bool:
        """Asks the guest of a pool's place whether it is still nobody's: a claim may have been cut short.

        Raises:
            UnavailableError: It does not answer for now.
            WorkspaceLostError: It is gone.
        """
        record = self._unsealed(await held.session.call_for({"op": "info"}, payloads.record))
        return record is not None and record.info.id == held.info.id and bool(record.pool)

    def _tell_once(self, workspace_id: str, what: str) -> None:
        """Logs a warning of a place that is asked again each minute; later ones at the debug level."""
        level = logging.DEBUG if workspace_id in self._told else logging.WARNING
        self._told[workspace_id] = None
        if len(self._told) > _MAX_TOLD:
            del self._told[next(iter(self._told))]
        _log.log(level, "%s", what, extra={"workspace_id": workspace_id})

    def _unsealed(self, sealed: str) -> WorkspaceRecord | None:
        text = self._identity.unseal(sealed)
        try:
            return None if text is None else self._registry.decode(text)
        except ValueError:
            return None


async def keep_going(interval: float, work: Callable[[], Awaitable[None]]) -> None:
    """Does some work every `interval` seconds until it is cancelled. A reaper: it reports what fails and goes on."""
    while True:
        await asyncio.sleep(interval)
        try:
            await work()
        except IsolationError as error:
            _log.warning("what is written down and what exists cannot be brought together for now: %s", error)
        except Exception:  # noqa: BLE001  a reaper
            _log.exception("cannot bring together what is written down and what exists")
