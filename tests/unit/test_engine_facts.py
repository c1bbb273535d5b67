"""What an engine is, as the service knows it: anew every now and then, and once for all who want to know."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from agentic_isolation import ProviderUnavailableError
from agentic_isolation_service.providers.docker import engine as docker_engine
from agentic_isolation_service.providers.docker.engine import Engine
from tests.unit.fake_engine import answering


class FakeEngine:
    """Says what it is and counts how often it was asked."""

    def __init__(self) -> None:
        self.runtimes = ["runc"]
        self.fails = False
        self.asked = 0

    async def answer(self, request: web.BaseRequest) -> web.Response:
        if request.path.endswith("/info"):
            self.asked += 1
            if self.fails:
                return web.json_response({"message": "it burns"}, status=500)
            return web.json_response({"ServerVersion": "1", "Runtimes": dict.fromkeys(self.runtimes)})
        return web.json_response({"ApiVersion": "1.45"})


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def engine(fake: FakeEngine, directory: Path) -> AsyncIterator[Engine]:
    async with answering(fake.answer, directory) as host:
        engine = Engine(host)
        yield engine
        await engine.aclose()


async def test_one_question_for_all_who_want_to_know(engine: Engine, fake: FakeEngine) -> None:
    known = await asyncio.gather(*(engine.facts() for _ in range(10)))
    assert {facts.runtimes for facts in known} == {frozenset({"runc"})}
    fake.runtimes = ["runc", "runsc"]
    assert (await engine.facts()).runtimes == {"runc"}
    assert fake.asked == 1


async def test_it_is_asked_again_after_a_while(
    engine: Engine, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_engine, "FACTS_AGE", 0)
    for runtimes in ({"runc"}, {"runc", "runsc"}, {"runc"}):
        fake.runtimes = list(runtimes)
        assert (await engine.facts()).runtimes == runtimes
    assert fake.asked == 3


async def test_a_failure_is_told_to_all_who_asked_and_not_remembered(engine: Engine, fake: FakeEngine) -> None:
    fake.fails = True
    failures = await asyncio.gather(*(engine.facts() for _ in range(3)), return_exceptions=True)
    assert {type(failure) for failure in failures} == {ProviderUnavailableError}
    fake.fails = False
    assert (await engine.facts()).runtimes == {"runc"}
    assert fake.asked == 2


async def test_who_gives_up_takes_the_question_from_nobody(engine: Engine, fake: FakeEngine) -> None:
    impatient, patient = (asyncio.ensure_future(engine.facts()) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await impatient
    assert (await patient).runtimes == {"runc"}
    assert fake.asked == 1
