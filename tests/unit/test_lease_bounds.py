"""What a guest says of the time that its workspace has left: no more than it was given."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path

import pytest

from agentic_isolation import Isolation, WorkspaceConfig, WorkspaceInfo, WorkspaceNotFoundError
from agentic_isolation_service.core import creation, workspace
from agentic_isolation_service.core.caller import OPERATOR
from agentic_isolation_service.core.ports import Place, PlaceSpec
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.guest.frames import FrameType
from agentic_isolation_service.providers.local import LocalProvider
from tests.support.eventually import eventually
from tests.unit.fake_guest import INFO, GuestEnd
from tests.unit.fake_provider import FakeProvider, holding

FOR_EVER = [10**12, 2**63 - 1]
"""Milliseconds."""


def immortal(left: int) -> FakeProvider:
    """Returns a provider of guests that always say how much time they have left."""

    async def script(end: GuestEnd) -> None:
        while True:
            channel, _ = await end.operation()
            await end.send_json(FrameType.RESULT, channel, INFO | {"lease_left_ms": left})

    return FakeProvider(script)


@pytest.mark.parametrize("left", FOR_EVER)
async def test_lease_ends_when_it_was_to_end(left: int) -> None:
    provider = immortal(left)
    async with holding({"fake": lambda: provider}) as workspaces:
        config = WorkspaceConfig(provider="fake", lease=60)
        info = await workspaces.create(OPERATOR, config)
        until = await workspaces.renew(OPERATOR, info.id, 30)
        assert (until - info.created_at).total_seconds() < 40


@pytest.mark.parametrize("left", FOR_EVER)
async def test_lifetime_ends_whatever_the_guest_says(left: int) -> None:
    provider = immortal(left)
    async with holding({"fake": lambda: provider}) as workspaces:
        config = WorkspaceConfig(provider="fake", lease=1, max_lifetime=2)
        info = await workspaces.create(OPERATOR, config)
        assert info.id in provider.guests
        await eventually(lambda: not provider.guests, "it was removed", within=10)


async def test_what_is_under_way_when_the_service_ends_a_workspace_is_told_which_end_it_was() -> None:
    async def slow(end: GuestEnd) -> None:
        while True:
            channel, operation = await end.operation()
            if operation["op"] != "run":
                await end.send_json(FrameType.RESULT, channel, INFO | {"lease_left_ms": 60_000})

    provider = FakeProvider(slow)
    async with holding({"fake": lambda: provider}) as workspaces:
        info = await workspaces.create(OPERATOR, WorkspaceConfig(provider="fake", max_lifetime=1))
        with pytest.raises(WorkspaceNotFoundError, match="its max_lifetime is over"):
            await workspaces.get(OPERATOR, info.id).session.call({"op": "run"})
        await eventually(lambda: not provider.guests, "it was removed", within=10)


async def test_lease_that_was_shortened_is_over_when_it_is_to_be_now() -> None:
    """Also where the guest does not end with it, though it says that it is over."""

    async def undying(end: GuestEnd) -> None:
        while True:
            channel, operation = await end.operation()
            await end.send_json(FrameType.RESULT, channel, INFO | {"lease_left_ms": operation.get("ttl_ms", 0)})

    provider = FakeProvider(undying)
    async with holding({"fake": lambda: provider}) as workspaces:
        info = await workspaces.create(OPERATOR, WorkspaceConfig(provider="fake", lease=600))
        await workspaces.renew(OPERATOR, info.id, 1)
        await eventually(lambda: not provider.guests, "it was removed", within=10)


async def test_guest_that_does_not_answer_is_waited_for_only_a_while_after_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workspace, "_OVERDUE", 1.0)
    asked: list[str] = []

    async def hanging(end: GuestEnd) -> None:
        while True:
            channel, operation = await end.operation()
            asked.append(operation["op"])
            if asked.count("info") == 1:
                await end.send_json(FrameType.RESULT, channel, INFO)

    provider = FakeProvider(hanging)
    async with holding({"fake": lambda: provider}) as workspaces:
        await workspaces.create(OPERATOR, WorkspaceConfig(provider="fake", lease=1))
        await eventually(lambda: not provider.guests, "it was removed", within=10)
    assert asked.count("info") > 1


@pytest.mark.parametrize(("says", "left"), [({}, 60), ({"lease_left_ms": 50_000}, 50), ({"lease_left_ms": 10**12}, 60)])
async def test_lease_is_what_the_guest_says_of_it_however_long_making_it_took(says: dict[str, int], left: int) -> None:
    """An image may have to be pulled first, which takes longer than many leases."""

    class SlowProvider(FakeProvider):
        async def create(self, spec: PlaceSpec) -> Place:
            await asyncio.sleep(1)
            return await super().create(spec)

    async def script(end: GuestEnd) -> None:
        while True:
            channel, _ = await end.operation()
            await end.send_json(FrameType.RESULT, channel, INFO | says)

    provider = SlowProvider(script)
    async with holding({"fake": lambda: provider}) as workspaces:
        info = await workspaces.create(OPERATOR, WorkspaceConfig(provider="fake", lease=60))
        told = (info.lease_expires_at - dt.datetime.now(dt.UTC)).total_seconds()
        assert left - 0.5 < told <= left


SHORT = {
    "lease": WorkspaceConfig(provider="local", lease=1, secrets={"A": "x"}),
    "idle": WorkspaceConfig(provider="local", idle_timeout=1, secrets={"A": "x"}),
    "lifetime": WorkspaceConfig(provider="local", max_lifetime=1, secrets={"A": "x"}),
}
"""What lives for a second."""


async def _lives_for_its_second(workspaces: Workspaces, config: WorkspaceConfig, info: WorkspaceInfo) -> None:
    """All of it is there for its owner to do something in, and then it is over."""
    left = (info.lease_expires_at - dt.datetime.now(dt.UTC)).total_seconds()
    assert 0 < left <= min(config.lease, config.max_lifetime or config.lease)
    session = workspaces.get(OPERATOR, info.id).session
    ran = await session.call({"op": "run", "process_id": "p-1", "argv": ["sh", "-c", "test $A = x"]})
    assert ran["exit_code"] == 0
    await eventually(lambda: not workspaces.page(OPERATOR, {}, 1, "")[0], "it has ended with its time", within=10)


@pytest.mark.parametrize("config", SHORT.values(), ids=SHORT)
async def test_times_begin_when_a_workspace_is_made_however_long_that_takes(
    directory: Path, config: WorkspaceConfig
) -> None:
    """An engine that is busy takes seconds from a guest's start to its own answer."""

    class BusyProvider(LocalProvider):
        async def create(self, spec: PlaceSpec) -> Place:
            place = await super().create(spec)
            await asyncio.sleep(1.5)
            return place

    async with holding({"local": lambda: BusyProvider(directory)}) as workspaces:
        await _lives_for_its_second(workspaces, config, await workspaces.create(OPERATOR, config))


async def test_workspace_is_looked_after_while_it_is_made(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it lasts without its service is over long before the engine has answered."""
    monkeypatch.setattr(creation, "_LEAST_WHILE_MADE", 1.0)

    class BusyProvider(LocalProvider):
        async def isolation(
            self, place: Place, config: WorkspaceConfig, measured: Isolation, *, in_gvisor: bool
        ) -> Isolation:
            await asyncio.sleep(2.5)
            return await super().isolation(place, config, measured, in_gvisor=in_gvisor)

    config = SHORT["lease"]
    async with holding({"local": lambda: BusyProvider(directory)}) as workspaces:
        await _lives_for_its_second(workspaces, config, await workspaces.create(OPERATOR, config))
