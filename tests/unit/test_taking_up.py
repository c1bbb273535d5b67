"""What a service that starts finds of its earlier processes, and what it waits for."""

from __future__ import annotations

import time

import pytest

from agentic_isolation.errors import ProviderUnavailableError
from agentic_isolation_service.core import adoption
from agentic_isolation_service.core.caller import OPERATOR
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.registry import SqliteRegistry
from tests.unit.fake_guest import FakeGuest, listen
from tests.unit.fake_provider import FakeProvider

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


async def test_places_that_do_not_answer_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody has written down is asked whose it is."""
    monkeypatch.setattr(adoption, "_ANSWER_TIMEOUT", WAIT)
    identity, provider = Identity.new(), FakeProvider(listen)
    for number in range(PLACES):
        workspace_id = f"ws-{number}"
        provider.guests[workspace_id] = FakeGuest(
            listen, workspace_id=workspace_id, key=identity.guest_key(workspace_id)
        )
    async with SqliteRegistry.open(None) as registry:
        began = time.monotonic()
        async with Workspaces({"fake": lambda: provider}, registry, identity, lasting=True) as workspaces:
            assert time.monotonic() - began < PLACES * WAIT / 2
            assert workspaces.page(OPERATOR, {}, 10, "") == ([], "")
    for guest in provider.guests.values():
        await guest.__aexit__(None, None, None)
