"""A workspace that cannot be removed for now is removed later, whoever wanted it to go."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from agentic_isolation import ProviderUnavailableError, WorkspaceConfig, WorkspaceNotFoundError
from agentic_isolation.models import WorkspaceState
from agentic_isolation_service.core import removal
from agentic_isolation_service.core.caller import OPERATOR
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.ports import Place
from agentic_isolation_service.core.records import WorkspaceRecord
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.guest.frames import FrameType
from agentic_isolation_service.registry import SqliteRegistry
from tests.support.eventually import eventually
from tests.unit.fake_guest import INFO, PATIENCE, GuestEnd, let_tasks_run
from tests.unit.fake_provider import FakeProvider, holding, just_made, serve_honestly


class AwayProvider(FakeProvider):
    """Its engine is away for the first attempts to remove a place."""

    def __init__(self, *, failures: int) -> None:
        super().__init__(serve_honestly)
        self.failures = failures
        self.attempts = 0

    async def destroy(self, place: Place, *, ending: bool = False) -> None:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise ProviderUnavailableError("the engine is away")
        await super().destroy(place)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "_PAUSES", (0.01,))


async def test_destruction_that_failed_goes_on() -> None:
    provider = AwayProvider(failures=5)
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}) as workspaces:
        info = await workspaces.create(OPERATOR, WorkspaceConfig(provider="fake"))
        with pytest.raises(ProviderUnavailableError):
            await workspaces.destroy(OPERATOR, info.id)
        assert workspaces.get(OPERATOR, info.id).info.state is WorkspaceState.DESTROYING
        await eventually(lambda: not provider.guests, "it is removed")
        await eventually(lambda: workspaces.page(OPERATOR, {}, 10, "") == ([], ""), "it is forgotten")
        with pytest.raises(WorkspaceNotFoundError):
            await workspaces.destroy(OPERATOR, info.id)
    assert provider.attempts == 6


async def test_destruction_that_fails_just_when_nobody_waits_any_more(caplog: pytest.LogCaptureFixture) -> None:
    """It is made again, and nobody complains of an error that was not told."""
    failing = asyncio.Event()

    class SlowProvider(AwayProvider):
        async def destroy(self, place: Place, *, ending: bool = False) -> None:
            if not self.attempts:
                await failing.wait()
            await super().destroy(place, ending=ending)

    provider = SlowProvider(failures=1)
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}) as workspaces:
        info = await workspaces.create(OPERATOR, WorkspaceConfig(provider="fake"))
        destroying = asyncio.create_task(workspaces.destroy(OPERATOR, info.id))
        await let_tasks_run()
        destroying.cancel()
        failing.set()
        await asyncio.wait([destroying])
        await eventually(lambda: not provider.guests, "it is removed for all that")
    del destroying
    gc.collect()
    assert not [record.message for record in caplog.records if "never retrieved" in record.message]


async def test_lease_that_ends_while_the_engine_is_away() -> None:
    provider = AwayProvider(failures=3)
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}) as workspaces:
        await workspaces.create(OPERATOR, WorkspaceConfig(provider="fake", lease=1))
        await eventually(lambda: not provider.guests, "it is removed")
    assert provider.attempts == 4


async def test_service_that_ends_while_the_engine_is_away() -> None:
    """It tries once more, and leaves the rest to the lease inside."""
    provider = AwayProvider(failures=1000)
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}) as workspaces:
        info = await workspaces.create(OPERATOR, WorkspaceConfig(provider="fake"))
        with pytest.raises(ProviderUnavailableError):
            await workspaces.destroy(OPERATOR, info.id)
    assert provider.closed
    for guest in provider.guests.values():
        await guest.__aexit__(None, None, None)


async def test_creation_that_is_cancelled_when_it_is_done_does_not_wait_for_an_engine_that_is_away() -> None:
    provider = AwayProvider(failures=10**9)
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}) as workspaces:
        creating = asyncio.create_task(workspaces.create(OPERATOR, WorkspaceConfig(provider="fake")))
        await just_made(workspaces)
        creating.cancel()
        await asyncio.wait([creating], timeout=5)
        provider.failures = 0
        assert creating.done()
        assert creating.cancelled()
        await eventually(lambda: not provider.guests, "it is removed for all that")


class SlowRegistry(SqliteRegistry):
    """Takes its time for the answer that a workspace's end is written down."""

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self.written, self.answer = asyncio.Event(), asyncio.Event()

    async def put(self, record: WorkspaceRecord) -> None:
        await super().put(record)
        if record.info.state is WorkspaceState.DESTROYING:
            self.written.set()
            await self.answer.wait()


async def test_renewal_does_not_write_down_as_ready_what_is_being_destroyed() -> None:
    """The service's next process would take it up as if nobody had wanted it to go."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(end: GuestEnd) -> None:
        while True:
            channel, operation = await end.operation()
            if operation["op"] == "lease":
                asked.set()
                await answer.wait()
            await end.send_json(FrameType.RESULT, channel, INFO)

    provider = FakeProvider(slow)
    async with asyncio.timeout(PATIENCE), SlowRegistry.open(None) as registry:
        assert isinstance(registry, SlowRegistry)
        async with Workspaces({"fake": lambda: provider}, registry, Identity.new()) as workspaces:
            info = await workspaces.create(OPERATOR, WorkspaceConfig(provider="fake"))
            renewing = asyncio.create_task(workspaces.renew(OPERATOR, info.id))
            await asked.wait()
            destroying = asyncio.create_task(workspaces.destroy(OPERATOR, info.id))
            await registry.written.wait()
            answer.set()
            await renewing
            assert [record.info.state for record in await registry.load()] == [WorkspaceState.DESTROYING]
            registry.answer.set()
            await destroying
