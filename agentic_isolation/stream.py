"""A command's output while it is printed: stdout's lines, as they are or as JSON, or every event."""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from agentic_isolation._lines import Line, LineSplitter
from agentic_isolation._resume import ResumedEvents
from agentic_isolation.errors import ClosedError
from agentic_isolation.jsonl import JsonLine, json_line
from agentic_isolation.runs import Exited, Gap, KeepAlive, Output, OutputSource, ProcessEvent, Termination

EventSource = Callable[[bool], ResumedEvents]
"""Gives the command's events, with the first of which it starts; told whether output must not be cut inside lines."""


_T = TypeVar("_T")


class LineStream(abc.ABC, Generic[_T]):
    """A command that runs as it is read. Iterate over it once: over itself for stdout's lines, or over `events()`.

    A line comes as soon as it is printed. When iteration ends, `termination` and `exit_code` tell how the command
    ended: a non-zero exit raises nothing. Leaving iteration early, or cancelling it, kills the command's process tree;
    `async with` around it does that at a definite moment.

    Args:
        source: The command's events.
    """

    def __init__(self, source: EventSource) -> None:
        self._source = source
        self._resumed: ResumedEvents | None = None
        self._running: AsyncGenerator[ProcessEvent, None] | None = None
        self._lines: deque[_T] = deque()
        self._splitter = LineSplitter()
        self._ending: list[Termination] = []
        self._closed = False

    @property
    def termination(self) -> Termination | None:
        """How the command ended; None while it has not."""
        return self._ending[0] if self._ending else None

    @property
    def exit_code(self) -> int | None:
        """0 to 255, 128+n for signal n, 124 after a timeout; None while the command has not ended."""
        return None if self.termination is None else self.termination.returncode

    def events(self) -> AsyncGenerator[ProcessEvent, None]:
        """Yields every event: Started, Output of both sources in the order of arrival, Gap, Exited.

        Output comes as bytes, as they were written, cut at arbitrary places.

        Raises:
            IsolationError: As AgenticWorkspace.execute.
        """
        return self._start(lines=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        await self._wait()
        if not self._lines:
            raise StopAsyncIteration
        return self._lines.popleft()

    async def take(self) -> list[_T]:
        """Waits for a line and returns it with those that have come together with it; none when the command has ended.

        Raises:
            IsolationError: As AgenticWorkspace.execute.
        """
        await self._wait()
        taken = list(self._lines)
        self._lines.clear()
        return taken

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stops reading and kills the process tree if it still runs.

        May be called twice: who calls while somebody closes it waits for that. Another task, or thread, that waits for
        the next line or event is told ClosedError.
        """
        if self._resumed is not None:
            self._resumed.check_loop()
        self._closed = True
        if self._resumed is not None and await self._resumed.interrupt():
            return
        if self._running is not None:
            await self._running.aclose()

    async def _wait(self) -> None:
        """Waits until there is a line, or there are none any more."""
        running = self._running or self._start(lines=True)
        if self._resumed is not None:
            self._resumed.check_loop()  # within the generator an error would be its end
        while not self._lines:
            event = await anext(running, None)
            if event is None:
                return
            if isinstance(event, Output) and event.source is OutputSource.STDOUT:
                self._lines += map(self._line, self._splitter.split(event.data))
            elif isinstance(event, Gap):
                self._lines += map(self._line, self._splitter.cut())
            elif isinstance(event, Exited):
                self._lines += map(self._line, self._splitter.rest())

    def _start(self, *, lines: bool) -> AsyncGenerator[ProcessEvent, None]:
        if self._running is not None or self._closed:
            raise ClosedError("a stream is iterated over once; call stream() again for another run")
        self._resumed = self._source(lines)
        self._running = _run(self._resumed, self._ending)
        return self._running

    @abc.abstractmethod
    def _line(self, line: Line) -> _T:
        """Returns what is given out for a line."""


class OutputStream(LineStream[str]):
    """A LineStream of text: lines without their newline, invalid UTF-8 replaced."""

    def _line(self, line: Line) -> str:
        return line.text


class JsonStream(LineStream[JsonLine]):
    """A LineStream of JSON documents: see JsonLine. Lines that are none come too, and pieces of lines over 16 MiB."""

    def _line(self, line: Line) -> JsonLine:
        return json_line(line)


# No method: a generator that held its stream would be in a cycle with it, and a stream that is left by `break` would
# not be closed, and its command not killed, before the garbage collector comes by.
async def _run(source: ResumedEvents, ending: list[Termination]) -> AsyncGenerator[ProcessEvent, None]:
    """Yields a run's events without its keep-alives, and notes in `ending` how the command ended."""
    try:
        while (event := await source.next()) is not None:
            if isinstance(event, KeepAlive):
                continue
            if isinstance(event, Exited):
                ending.append(event.termination)
            yield event
    finally:
        await source.aclose()
