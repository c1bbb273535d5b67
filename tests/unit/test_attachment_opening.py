"""An attachment opens whatever comes first, as nobody reads its output before, and tells all of why it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agentic_isolation._attachment import MAX_UNREAD, Attachment
from agentic_isolation._connection import Connection
from agentic_isolation._retry import Patience
from agentic_isolation.errors import IsolationError, QuotaError, WorkspaceLostError
from agentic_isolation.runs import Exited, Output
from agentic_isolation.v1 import workspace_pb2 as pb

PIECE = 64 << 10
REFUSALS = [
    QuotaError("no more commands", field="open", subject="tenant:agents"),
    QuotaError("not now", retry_after=5.0, subject="tenant:agents"),
    WorkspaceLostError("it is gone"),
]


class Talkative:
    """A service whose process writes a lot before it is known where its input is."""

    stub = SimpleNamespace(Attach=None)

    def patience(self) -> Patience:
        return Patience(0)

    async def stream(self, *_: object, **__: object) -> AsyncGenerator[pb.AttachResponse, None]:
        yield pb.AttachResponse(started=pb.ProcessStarted(process_id="p-1"))
        for number in range(2 * MAX_UNREAD // PIECE):
            output = pb.ProcessOutput(source=pb.OUTPUT_SOURCE_STDOUT, offset=number * PIECE, data=bytes(PIECE))
            yield pb.AttachResponse(output=output)
        yield pb.AttachResponse(input=pb.InputProgress(offset=0))
        yield pb.AttachResponse(exited=pb.ProcessExited(termination=pb.Termination(exit_code=0)))


async def test_much_output_before_the_input_is_placed() -> None:
    opening = pb.AttachOpen(start=pb.ProcessStart())
    attachment = Attachment(cast("Connection", cast("Any", Talkative())), opening)
    try:
        async with asyncio.timeout(10):
            await attachment.open()
            events = []
            while (event := await attachment.next()) is not None:
                events.append(event)
    finally:
        await attachment.aclose()
    *outputs, exited = events
    assert sum(len(event.data) for event in outputs if isinstance(event, Output)) == 2 * MAX_UNREAD
    assert isinstance(exited, Exited)


class Refusing(Talkative):
    """A service that refuses."""

    def __init__(self, error: IsolationError) -> None:
        self._errors = [error]

    async def stream(self, *_: object, **__: object) -> AsyncGenerator[pb.AttachResponse, None]:
        for error in self._errors:
            raise error
        yield pb.AttachResponse()


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
async def test_a_refusal_is_told_with_all_that_it_says(refusal: IsolationError) -> None:
    opening = pb.AttachOpen(start=pb.ProcessStart())
    attachment = Attachment(cast("Connection", cast("Any", Refusing(refusal))), opening)
    for attempt in (attachment.open, attachment.next):
        with pytest.raises(type(refusal)) as raised:
            await attempt()
        assert str(raised.value) == str(refusal)
        assert vars(raised.value) == vars(refusal)
    await attachment.aclose()
    with pytest.raises(type(refusal)) as raised:
        await attachment.next()
    assert vars(raised.value) == vars(refusal)
