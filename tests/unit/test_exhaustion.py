"""Commands that the want of memory has ended: the guest says that they have exited, and the engine knows better."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentic_isolation.models import ResourceLimits, WorkspaceConfig
from agentic_isolation.runs import Exited, Started, Termination, TerminationCause
from agentic_isolation_service.core import control
from agentic_isolation_service.core.exhaustion import judge_of
from agentic_isolation_service.core.ports import Place
from agentic_isolation_service.core.processes import ProcessStream
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.frames import FrameType
from agentic_isolation_service.guest.session import GuestSession
from tests.unit.fake_guest import EXITED, KEY, WORKSPACE_ID, FakeGuest, GuestEnd, listen, started
from tests.unit.fake_provider import FakeProvider

LIMIT = 128 << 20
PLACE = Place(WORKSPACE_ID, runtime="runsc")
LARGE = EXITED | {"exit_code": 1, "peak_memory_bytes": 116 << 20}


class TellingProvider(FakeProvider):
    """Says that the kernel has killed something, or not."""

    def __init__(self, *, exhausted: bool) -> None:
        super().__init__(listen)
        self.asked: list[bool] = []
        """For each question, whether it was to be waited."""
        self._exhausted = exhausted

    async def exhausted(self, place: Place, *, wait: bool) -> bool:
        assert place is PLACE
        self.asked.append(wait)
        return self._exhausted


def config_of(limit: int | None = LIMIT) -> WorkspaceConfig:
    return WorkspaceConfig(limits=ResourceLimits(memory=limit))


ENDED = payloads.termination(LARGE)


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        (ENDED, [True]),
        (replace(ENDED, peak_memory_bytes=LIMIT // 2), [True]),
        (replace(ENDED, exit_code=0), [False]),
        (replace(ENDED, exit_code=None, signal=9, cause=TerminationCause.SIGNALED), [True]),
        (replace(ENDED, peak_memory_bytes=LIMIT // 2 - 1), []),
        (replace(ENDED, cause=TerminationCause.TIMEOUT), []),
        (replace(ENDED, cause=TerminationCause.KILLED), []),
    ],
    ids=["failed", "half", "succeeded", "signaled", "small", "timeout", "killed"],
)
@pytest.mark.parametrize("exhausted", [True, False])
async def test_who_is_asked_of_how_it_ended(said: Termination, asked: list[bool], exhausted: bool) -> None:
    """Whom the memory cannot have ended, or who was ended for another reason, waits for nobody's word."""
    provider = TellingProvider(exhausted=exhausted)
    judge = judge_of(provider, PLACE, config_of())
    assert judge is not None
    cause = TerminationCause.OUT_OF_MEMORY if exhausted and asked else said.cause
    assert await judge(said) == replace(said, cause=cause)
    assert provider.asked == asked


def test_nobody_is_asked_where_memory_has_no_limit() -> None:
    assert judge_of(TellingProvider(exhausted=True), PLACE, config_of(None)) is None
    assert judge_of(TellingProvider(exhausted=True), PLACE, WorkspaceConfig()) is None


async def test_every_way_to_an_end_tells_the_same() -> None:
    """It is read, it is waited for; and it counts once, for what it was."""

    async def script(end: GuestEnd) -> None:
        while True:
            channel, operation = await end.operation()
            if operation["op"] == "attach":
                await end.send_json(FrameType.EVENT, channel, started(operation))
            await end.send_json(FrameType.RESULT, channel, LARGE)

    judge = judge_of(TellingProvider(exhausted=True), PLACE, config_of())
    async with FakeGuest(script) as guest:
        session = GuestSession(WORKSPACE_ID, KEY, guest.connect, judge=judge)
        async with await ProcessStream.resume(session, "p-1", 0) as stream:
            assert isinstance(await stream.next(), Started)
            ended = await stream.next()
            assert isinstance(ended, Exited)
            assert ended.termination.cause is TerminationCause.OUT_OF_MEMORY
        assert await control.wait(session, "p-1") == ended.termination
        assert {cause: sum(each.counts) for cause, each in session.counts.commands.items()} == {
            TerminationCause.OUT_OF_MEMORY: 1
        }
        await session.aclose()
