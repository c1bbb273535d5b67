"""Claims that fail, are cancelled or come too late: nobody waits for a pool, and no place serves two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from agentic_isolation.models import PoolInfo, WorkspaceConfig
from agentic_isolation_service.core import pools, refilling
from agentic_isolation_service.core.caller import OPERATOR
from agentic_isolation_service.core.templates import PoolTemplate
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.guest.frames import FrameType
from tests.support.eventually import eventually
from tests.unit.fake_guest import INFO, PATIENCE, GuestEnd
from tests.unit.fake_provider import FakeProvider, holding

CONFIG = WorkspaceConfig(provider="fake")
TEMPLATE = PoolTemplate(name="fakes", config=CONFIG, min=1, max=2)
OnClaim = Callable[[GuestEnd, int], Awaitable[None]]


class Guests:
    """The script of guests that answer everything, and claims as they are told to when they are a pool's."""

    def __init__(self, on_claim: OnClaim) -> None:
        self._on_claim = on_claim
        self.claims = 0

    async def __call__(self, end: GuestEnd) -> None:
        pooled = False
        while True:
            channel, operation = await end.operation()
            pooled |= operation["op"] == "remember"  # what nobody waits for is made without a claim
            if operation["op"] == "claim" and pooled:
                self.claims += 1
                await self._on_claim(end, channel)
            else:
                await end.send_json(FrameType.RESULT, channel, INFO)


async def accept(end: GuestEnd, channel: int) -> None:
    await end.send_json(FrameType.RESULT, channel, {"lease_left_ms": 1 << 62})


async def refuse(end: GuestEnd, channel: int) -> None:
    await end.send_json(FrameType.ERROR, channel, {"reason": "BAD_REQUEST", "message": "claimed before"})


async def stay_silent(end: GuestEnd, channel: int) -> None:
    pass


async def hang_up(end: GuestEnd, channel: int) -> None:
    await end.hang_up()


async def babble(end: GuestEnd, channel: int) -> None:
    await end.send_json(FrameType.RESULT, channel, {"lease_left_ms": "for ever"})


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """A provider; all of its places are removed in the end."""
    provider = FakeProvider(Guests(accept))
    yield provider
    assert not provider.guests


def pool_of(workspaces: Workspaces) -> PoolInfo:
    [pool] = workspaces.describe_pools(OPERATOR)
    return pool


async def filled(workspaces: Workspaces) -> None:
    def is_full() -> bool:
        pool = pool_of(workspaces)
        return pool.ready == pool.wanted

    await eventually(is_full, "the pool is filled")


async def test_places_come_from_the_pool_and_go_with_the_service(provider: FakeProvider) -> None:
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}, [TEMPLATE]) as workspaces:
        await filled(workspaces)
        [waiting] = provider.guests
        assert workspaces.page(OPERATOR, {}, 10, "") == ([], "")
        info = await workspaces.create(OPERATOR, CONFIG)
        assert info.id == waiting
        assert (info.lease_expires_at - info.created_at).total_seconds() < CONFIG.lease + 1
        await filled(workspaces)


@pytest.mark.parametrize("on_claim", [refuse, stay_silent, hang_up, babble])
async def test_place_that_does_not_take_the_claim(
    provider: FakeProvider, on_claim: OnClaim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is removed, and the workspace is made as if there were no pool."""
    monkeypatch.setattr(pools, "_CLAIM_PATIENCE", 0.1)
    guests = Guests(on_claim)
    provider = FakeProvider(guests)
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}, [TEMPLATE]) as workspaces:
        await filled(workspaces)
        [waiting] = provider.guests
        info = await workspaces.create(OPERATOR, CONFIG)
        assert info.id != waiting
        assert guests.claims >= 1
        await eventually(lambda: waiting not in provider.guests, "the place is removed")
        pool = pool_of(workspaces)
        assert (pool.hits, pool.misses) == (0, 1)
        await filled(workspaces)
    assert not provider.guests


async def test_pools_beside_the_one_whose_places_do_not_take_the_claim(provider: FakeProvider) -> None:
    """What is ready in another one, and would do as well, is claimed before a workspace is made."""
    refused = asyncio.Event()

    async def refuse_once(end: GuestEnd, channel: int) -> None:
        await (accept if refused.is_set() else refuse)(end, channel)
        refused.set()

    provider = FakeProvider(Guests(refuse_once))
    templates = [PoolTemplate(name=name, config=CONFIG, min=1, max=1) for name in ("first", "second")]
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}, templates) as workspaces:

        def are_full() -> bool:
            return all(pool.ready for pool in workspaces.describe_pools(OPERATOR))

        await eventually(are_full, "both are filled")
        waiting = set(provider.guests)
        info = await workspaces.create(OPERATOR, CONFIG)
        assert info.id in waiting
        counted = [(pool.name, pool.hits, pool.misses) for pool in workspaces.describe_pools(OPERATOR)]
        assert counted == [("first", 0, 0), ("second", 1, 0)]
        await eventually(are_full, "both are filled again")
    assert not provider.guests


async def _removed(provider: FakeProvider, places: set[str]) -> None:
    await eventually(lambda: places - provider.guests.keys(), "what was claimed is removed")


@pytest.mark.parametrize("request_id", ["", "request-1"])
async def test_claim_that_is_cancelled_at_any_turn_of_the_loop_leaves_nothing(request_id: str) -> None:
    guests = Guests(accept)
    provider = FakeProvider(guests)
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}, [TEMPLATE]) as workspaces:
        for turns in range(1000):
            await filled(workspaces)
            claims, before = guests.claims, set(provider.guests)
            creating = asyncio.create_task(workspaces.create(OPERATOR, CONFIG, request_id))
            for _ in range(turns):
                await asyncio.sleep(0)
            creating.cancel()
            await asyncio.wait([creating])
            if not creating.cancelled():
                break
            assert workspaces.page(OPERATOR, {}, 10, "") == ([], "")
            if guests.claims > claims:
                await _removed(provider, before)
        else:
            raise AssertionError("a claim takes fewer turns")
        assert creating.result().id in before


async def test_places_of_an_image_that_has_moved(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refilling, "LOOK_INTERVAL", 0.1)
    provider.image = "sha256:old"
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}, [TEMPLATE]) as workspaces:
        await filled(workspaces)
        [old] = provider.guests
        provider.image = "sha256:new"
        await eventually(lambda: old not in provider.guests, "the place of the older image is removed", within=15)
        await filled(workspaces)
        assert (await workspaces.create(OPERATOR, CONFIG)).id != old


async def test_a_look_for_moved_images_that_meets_a_defect_is_not_the_last_thing_that_is_done_for_pools(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(refilling, "LOOK_INTERVAL", 0.05)
    met = asyncio.Event()

    class OddProvider(FakeProvider):
        async def image_id(self, config: WorkspaceConfig) -> str:
            if self.guests and not met.is_set():
                met.set()
                raise KeyError("Id")
            return self.image

    provider = OddProvider(Guests(accept))
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}, [TEMPLATE]) as workspaces:
        await filled(workspaces)
        await met.wait()
        await workspaces.create(OPERATOR, CONFIG)
        await eventually(lambda: len(provider.guests) > 1, "the pool is filled again")
    assert not provider.guests
    assert "pool fakes" in caplog.text


async def test_pool_that_waits_for_a_provider_in_vain_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_LOOK_TIMEOUT", 0.05)

    class SilentProvider(FakeProvider):
        async def image_id(self, config: WorkspaceConfig) -> str:
            await asyncio.Event().wait()
            raise AssertionError("it never answers")

    provider = SilentProvider(Guests(accept))
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}, [TEMPLATE]) as workspaces:
        await eventually(lambda: "not told within 0.05 s" in pool_of(workspaces).last_error, "it is told")
