"""A command's events as one stream, over however many calls it takes to read them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from agentic_isolation._cleanup import finish
from agentic_isolation._retry import Patience, give_up
from agentic_isolation.errors import DeadlineError, IsolationError, OffsetError, UnavailableError
from agentic_isolation.models import Exited, Gap, Output, ProcessEvent, Started

Events = AsyncGenerator[ProcessEvent, None]


class _Reader:
    """Where the reader of a process is."""

    def __init__(self) -> None:
        self.process_id = ""
        self.offset = 0
        self.ended = False

    def is_news(self, event: ProcessEvent) -> bool:
        """Moves on by an event; returns whether it was not seen before."""
        match event:
            case Started(process_id):
                known, self.process_id = self.process_id, process_id
                return not known
            case Output(_, offset, data):
                self.offset = offset + len(data)
            case Gap(lost_bytes):
                self.offset += lost_bytes
            case Exited():
                self.ended = True
        return True


async def resumed(
    start: Callable[[], Events],
    resume: Callable[[str, int], Events],
    patience: Patience,
    kill: Callable[[], Awaitable[object]] | None,
) -> Events:
    """Yields a process's events once each, and goes on where it was when a call ends with UnavailableError.

    Closed or cancelled before the process has ended, it kills it.

    Args:
        start: Starts the process, or where it was started before, reads it from its beginning.
        resume: Reads a process, by its id, from an offset.
        patience: How long unavailability is borne with; every event begins it anew.
        kill: Kills the process, or forbids it to start; None: leaving a call does.

    Raises:
        ProcessNotFoundError, OffsetError: The process, or that much of its output, was forgotten meanwhile.
        IsolationError: As the calls.
    """
    reader = _Reader()
    try:
        while True:
            source = resume(reader.process_id, reader.offset) if reader.process_id else start()
            async with contextlib.aclosing(source):
                try:
                    async for event in source:
                        patience.renew()
                        if reader.is_news(event):
                            yield event
                    failure = UnavailableError("the stream ended before the command did")
                except UnavailableError as error:
                    failure = error
            if reader.ended:
                return
            await patience.wait(failure)
    except IsolationError as error:
        # Others say that nothing runs, or that nobody can be reached to end it: then it has its linger to live.
        if isinstance(error, OffsetError | DeadlineError) and kill is not None:
            await finish(give_up(kill))
        raise
    except BaseException:
        if not reader.ended and kill is not None:
            await finish(give_up(kill))
        raise
