"""How long the client waits where a service has said that it has done nothing, and when to come back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from agentic_isolation import AgenticWorkspace, IsolationError, OverloadedError, QuotaError
from tests.support.scripted_service import ScriptedService

DELAY = 0.3
REFUSALS = [
    OverloadedError("too much to do", retry_after=DELAY),
    QuotaError("your turn comes", retry_after=DELAY, subject="tenant:a"),
]


@pytest.fixture
async def ws(scripted: ScriptedService) -> AsyncIterator[AgenticWorkspace]:
    async with AgenticWorkspace.create(provider="local", target=scripted.target, retry_timeout=5) as ws:
        yield ws


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.reason)
async def test_it_waits_as_long_as_the_service_says(
    scripted: ScriptedService, ws: AgenticWorkspace, refusal: IsolationError
) -> None:
    scripted.will_answer("Execute", refusal, refusal)
    began = time.monotonic()
    await ws.execute("true")
    assert 2 * DELAY <= time.monotonic() - began < 2 * DELAY * 1.5 + 1
    first, *others = scripted.asked_for("Execute")
    assert others == [first] * 2
    assert not scripted.asked_for("SignalProcess")


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.reason)
async def test_a_workspace_is_made_and_a_stream_begun_when_it_is_their_turn(
    scripted: ScriptedService, refusal: IsolationError
) -> None:
    scripted.will_answer("CreateWorkspace", refusal)
    scripted.will_answer("Stream", [refusal], [refusal])
    async with AgenticWorkspace.create(provider="local", target=scripted.target, retry_timeout=0.5) as ws:
        with pytest.raises(IsolationError, match="tried 2 times") as caught:
            await anext(ws.stream("true"))
    assert type(caught.value) is type(refusal)
    assert len(scripted.asked_for("CreateWorkspace")) == 2


@pytest.mark.parametrize(
    "refusal",
    [
        QuotaError("it never fits"),
        QuotaError("it may last", retry_after=60, subject="tenant:a"),
        OverloadedError("it may last", retry_after=60),
    ],
    ids=["no time", "quota", "overload"],
)
async def test_what_it_has_no_patience_for_is_told_at_once(
    scripted: ScriptedService, ws: AgenticWorkspace, refusal: IsolationError
) -> None:
    scripted.will_answer("Execute", refusal)
    began = time.monotonic()
    with pytest.raises(type(refusal)) as caught:
        await ws.execute("true")
    assert time.monotonic() - began < 1
    assert (caught.value.message, caught.value.retry_after) == (refusal.message, refusal.retry_after)
    if isinstance(refusal, QuotaError):
        assert isinstance(caught.value, QuotaError)
        assert caught.value.subject == refusal.subject
    assert len(scripted.asked_for("Execute")) == 1


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.reason)
async def test_what_must_not_be_done_twice_is_asked_again_when_nothing_was_done(
    scripted: ScriptedService, ws: AgenticWorkspace, refusal: IsolationError
) -> None:
    scripted.will_answer("MoveFile", refusal)
    await ws.files.move("one", "two")
    assert len(scripted.asked_for("MoveFile")) == 2
