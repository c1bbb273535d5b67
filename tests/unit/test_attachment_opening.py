"""An attachment opens whatever comes first: nobody reads its output before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast

from agentic_isolation._attachment import MAX_UNREAD, Attachment
from agentic_isolation._connection import Connection
from agentic_isolation._retry import Patience
from agentic_isolation.runs import Exited, Output
from agentic_isolation.v1 import workspace_pb2 as pb

PIECE = 64 << 10


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
