"""Places of an earlier process of the service: those that it can claim it keeps, and no other stands in their way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

import pytest

from agentic_isolation.models import WorkspaceConfig
from agentic_isolation_service.core import pool
from agentic_isolation_service.core.caller import OPERATOR
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.templates import PoolTemplate
from agentic_isolation_service.core.workspace import HeldWorkspace
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.guest.frames import FrameType
from agentic_isolation_service.registry import SqliteRegistry
from tests.support.eventually import eventually
from tests.unit.fake_guest import INFO, PATIENCE, GuestEnd
from tests.unit.fake_provider import FakeProvider

TEMPLATE = PoolTemplate(name="fakes", config=WorkspaceConfig(provider="fake"), min=1, max=1)


class Guests:
    """The script of guests that remember their record, and say so to whoever connects again, or stay silent then."""

    def __init__(self, *, silent: bool = False) -> None:
        self.asked = asyncio.Event()
        self._silent = silent
        self._record = ""

    async def __call__(self, end: GuestEnd) -> None:
        while True:
            channel, operation = await end.operation()
            if end.number and operation["op"] == "info":
                self.asked.set()
                if self._silent:
                    continue
            self._record = operation.get("record", self._record)
            await end.send_json(FrameType.RESULT, channel, INFO | {"record": self._record})


class Services:
    """One process of a service after the other."""

    def __init__(self, provider: FakeProvider, registry: SqliteRegistry) -> None:
        self._provider = provider
        self._registry = registry
        self._identity = Identity.new()

    def next(self) -> Workspaces:
        return Workspaces(
            {"fake": lambda: self._provider}, self._registry, self._identity, lasting=True, pools=[TEMPLATE]
        )


@contextlib.asynccontextmanager
async def services(provider: FakeProvider) -> AsyncIterator[Services]:
    async with asyncio.timeout(PATIENCE), SqliteRegistry.open(None) as registry:
        yield Services(provider, registry)
    for guest in provider.guests.values():
        await guest.__aexit__(None, None, None)


async def filled(workspaces: Workspaces) -> None:
    await eventually(lambda: workspaces.describe_pools(OPERATOR)[0].ready == 1, "the pool is filled")


async def test_place_that_does_not_say_whose_it_is_makes_way_when_its_lease_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "POOL_LEASE", 0.5)
    provider = FakeProvider(Guests(silent=True))
    async with services(provider) as lasting:
        async with lasting.next() as workspaces:
            await filled(workspaces)
        [silent] = provider.guests
        async with lasting.next() as workspaces:
            await filled(workspaces)
            await eventually(lambda: silent not in provider.guests, "the silent place is removed")
            assert len(provider.guests) == 1


def test_place_that_answers_just_when_it_was_dropped_is_not_ready() -> None:
    """What removes it has not begun yet, and so has not stopped whoever asks its guest."""
    taken_up, place = pool.Pool(TEMPLATE), pool.PooledPlace(cast("HeldWorkspace", object()), "sha256:old")
    taken_up.entering.add(place)
    taken_up.drop(place)
    taken_up.enter(place)
    assert taken_up.take() is None
