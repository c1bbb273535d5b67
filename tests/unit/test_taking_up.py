"""What a service that starts finds of its earlier processes, and what it waits for."""

from __future__ import annotations

import asyncio
import datetime as dt
import time

import pytest

from agentic_isolation.errors import ProviderUnavailableError, RegistryUnavailableError
from agentic_isolation.models import Isolation, WorkspaceConfig, WorkspaceInfo, WorkspaceState
from agentic_isolation_service.core import adoption, reconciliation
from agentic_isolation_service.core import workspaces as workspaces_module
from agentic_isolation_service.core.caller import OPERATOR
from agentic_isolation_service.core.counts import Counts
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.records import WorkspaceRecord
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.guest.frames import FrameType
from agentic_isolation_service.registry import SqliteRegistry
from tests.support.eventually import eventually
from tests.unit.fake_guest import INFO, PATIENCE, FakeGuest, GuestEnd, Script, listen
from tests.unit.fake_provider import FakeProvider, serve_honestly

PLACES = 8
WAIT = 0.5
"""Seconds."""


async def test_provider_that_cannot_tell_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """It may have held the start up for long, and what it has made is missing until it answers."""
    provider = FakeProvider(listen)

    async def refuse() -> frozenset[str]:
        raise ProviderUnavailableError("it hangs")

    provider.list = refuse  # type: ignore[method-assign]
    async with (
        SqliteRegistry.open(None) as registry,
        Workspaces({"fake": lambda: provider}, registry, Identity.new(), lasting=True),
    ):
        pass
    [told] = [record for record in caplog.records if "fake workspaces are there: it hangs" in record.message]
    assert told.levelname == "WARNING"


def left(provider: FakeProvider, identity: Identity, workspace_id: str, script: Script) -> None:
    """Has a place of an earlier process there, which nobody has written down."""
    key = identity.guest_key(workspace_id)
    provider.guests[workspace_id] = FakeGuest(script, workspace_id=workspace_id, key=key)


async def test_places_that_do_not_answer_are_waited_for_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that nobody has written down is asked whose it is."""
    monkeypatch.setattr(adoption, "_ANSWER_TIMEOUT", WAIT)
    identity, provider = Identity.new(), FakeProvider(listen)
    for number in range(PLACES):
        left(provider, identity, f"ws-{number}", listen)
    async with SqliteRegistry.open(None) as registry:
        began = time.monotonic()
        async with Workspaces({"fake": lambda: provider}, registry, identity, lasting=True) as workspaces:
            assert time.monotonic() - began < PLACES * WAIT / 2
            assert workspaces.page(OPERATOR, {}, 10, "") == ([], "")
    told = {record.message for record in caplog.records}
    assert told == {f"a place does not answer: nothing came within {WAIT:g} s"}
    for guest in provider.guests.values():
        await guest.__aexit__(None, None, None)


class Remembering:
    """The script of a guest that says what it was given to remember, once `after` is set."""

    def __init__(self, record: str, after: asyncio.Event) -> None:
        self._record = record
        self._after = after

    async def __call__(self, end: GuestEnd) -> None:
        while True:
            channel, _ = await end.operation()
            await self._after.wait()
            await end.send_json(FrameType.RESULT, channel, INFO | {"record": self._record, "lease_left_ms": 60_000})


def remembered(registry: SqliteRegistry, identity: Identity, workspace_id: str) -> str:
    """Returns what the guest of a workspace was given."""
    now = dt.datetime.now(dt.UTC)
    info = WorkspaceInfo(
        id=workspace_id,
        provider="fake",
        state=WorkspaceState.READY,
        working_dir="/workspace",
        created_at=now,
        lease_expires_at=now + dt.timedelta(seconds=60),
        isolation=Isolation(runtime="fake"),
    )
    return identity.seal(registry.encode(WorkspaceRecord(WorkspaceConfig(provider="fake"), info, "", "", "")))


async def test_silent_places_hold_a_start_up_for_so_long_and_no_longer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They hold up none that answers; one that answers later is taken up then."""
    monkeypatch.setattr(reconciliation, "_TURN", WAIT / 10)
    monkeypatch.setattr(reconciliation, "_START_PATIENCE", WAIT)
    identity, provider = Identity.new(), FakeProvider(listen)
    at_once, later = asyncio.Event(), asyncio.Event()
    at_once.set()
    async with asyncio.timeout(PATIENCE), SqliteRegistry.open(None) as registry:
        for number in range(5 * PLACES):
            left(provider, identity, f"ws-{number}", listen)
        for workspace_id, after in ("ws-quick", at_once), ("ws-slow", later):
            script = Remembering(remembered(registry, identity, workspace_id), after)
            left(provider, identity, workspace_id, script)
        async with Workspaces({"fake": lambda: provider}, registry, identity, lasting=True) as workspaces:

            def found() -> list[str]:
                return [info.id for info in workspaces.page(OPERATOR, {}, 10, "")[0]]

            assert found() == ["ws-quick"]
            assert "do not answer" in caplog.text
            later.set()
            await eventually(lambda: len(found()) == 2, "the other one is taken up")
    for guest in provider.guests.values():
        await guest.__aexit__(None, None, None)


async def test_registry_that_cannot_be_used_for_now_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    """Its disk is full when old requests are to be forgotten: that is told in a line, and tried again."""
    attempts = 0

    async def work() -> None:
        nonlocal attempts
        attempts += 1
        raise RegistryUnavailableError("database or disk is full")

    looking = asyncio.create_task(adoption.keep_going(0.01, work))
    await eventually(lambda: attempts > 1, "it is tried again")
    looking.cancel()
    await asyncio.wait([looking])
    for record in caplog.records:
        assert (record.levelname, record.exc_info) == ("WARNING", None)
        assert record.message.endswith("disk is full")


async def test_workspace_that_is_destroyed_while_a_provider_lists_its_places_is_no_lost_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An engine that has much to do takes seconds to say what it has, and what it says is as old."""
    monkeypatch.setattr(workspaces_module, "RECONCILE_INTERVAL", 0.01)
    destroyed = asyncio.Event()

    class SlowProvider(FakeProvider):
        lists = 0
        has_found = False

        async def list(self) -> frozenset[str]:
            found = frozenset(self.guests)
            self.lists += 1
            if found:
                self.has_found = True
                await destroyed.wait()
            return found

    provider = SlowProvider(serve_honestly)
    async with (
        asyncio.timeout(PATIENCE),
        SqliteRegistry.open(None) as registry,
        Workspaces({"fake": lambda: provider}, registry, Identity.new(), lasting=True) as workspaces,
    ):
        made = await workspaces.create(OPERATOR, WorkspaceConfig(provider="fake"))
        await eventually(lambda: provider.has_found, "it is listed")
        await workspaces.destroy(OPERATOR, made.id)
        lists = provider.lists
        destroyed.set()
        await eventually(lambda: provider.lists > lists, "that was looked at")
        assert workspaces.counts.of("fake").guests.lost == 0
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


async def test_place_that_does_not_answer_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked again each minute, as hundreds of others may be."""
    monkeypatch.setattr(adoption, "_ANSWER_TIMEOUT", WAIT / 10)
    identity, provider = Identity.new(), FakeProvider(listen)
    async with SqliteRegistry.open(None) as registry:
        adopting = adoption.Adoption(registry, identity, Counts())
        for workspace_id in ("ws-0", "ws-1"):
            left(provider, identity, workspace_id, listen)
            for _ in range(3):
                assert await adopting.unknown(provider, workspace_id) is None
    told = [vars(record)["workspace_id"] for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["ws-0", "ws-1"]
    for guest in provider.guests.values():
        await guest.__aexit__(None, None, None)
