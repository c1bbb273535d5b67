"""Process: a command that is interacted with while it runs, or looked in on later."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar, overload

from agentic_isolation._attachment import Attachment
from agentic_isolation._cleanup import finish
from agentic_isolation._lines import Line, LineSplitter
from agentic_isolation._retry import give_up
from agentic_isolation._wire import check_bytes
from agentic_isolation.interaction import TerminalSize
from agentic_isolation.jsonl import JsonLine, Parse, check_parse, json_line
from agentic_isolation.runs import Exited, Gap, Output, OutputSource, Termination

__all__ = ["Process"]

_T = TypeVar("_T")


class Process:
    """A process in a workspace: its output comes out, input, sizes and signals go in.

    Made by AgenticWorkspace.start and AgenticWorkspace.attach. Iterate over it for its events, or over `lines()`; an
    iteration that was left is taken up by the next one. A process that is neither read nor waited for is held back when
    256 KiB of its output wait here and its log is full, unless it is detached.

    A broken connection, or a service that is started anew, is borne with as by AgenticWorkspace.stream: no byte of the
    input and the output is lost or doubled.

    Leaving `async with` kills the process tree if it was started here and neither detached nor started detached.

    Args:
        attachment: The calls to it.
        signal: Sends a signal to its foreground, or to the command where it has no terminal.
        kill: Kills its tree.
        owned: Whether leaving this kills it.
    """

    def __init__(
        self,
        attachment: Attachment,
        signal: Callable[[str, int], Awaitable[None]],
        kill: Callable[[str], Awaitable[None]],
        *,
        owned: bool,
    ) -> None:
        self._attachment = attachment
        self._signal = signal
        self._kill = kill
        self._owned = owned
        self._leaving = False
        self._left = asyncio.Event()
        """Whether it was let go of, and killed where that was due."""
        self._splitter = LineSplitter()
        self._lines: deque[Line] = deque()

    @property
    def id(self) -> str:
        """Its id in its workspace."""
        return self._attachment.process_id

    @property
    def offset(self) -> int:
        """Place of the next byte of its output that an iteration will give; to be attached from later."""
        return self._attachment.offset

    @property
    def termination(self) -> Termination | None:
        """How it ended; None while that is not known here."""
        return self._attachment.termination

    @property
    def exit_code(self) -> int | None:
        """0 to 255, 128+n for signal n, 124 after a timeout; None while it has not ended."""
        return None if self.termination is None else self.termination.returncode

    def __aiter__(self) -> AsyncGenerator[Output | Gap | Exited, None]:  # noqa: PYI058  it can be closed
        """Yields its events from where it was started or attached: Output, Gap where some was lost, Exited at the end.

        Raises:
            ClosedError: It was detached or left.
            InputTakenError: Another attachment has become the writer of its input.
            IsolationError: The process, or its workspace, is gone.
        """
        return self._each_event()

    async def __anext__(self) -> Output | Gap | Exited:
        event = await self._attachment.next()
        if event is None:
            raise StopAsyncIteration
        return event

    @overload
    def lines(self, *, parse: None = None) -> AsyncGenerator[str, None]: ...

    @overload
    def lines(self, *, parse: Parse) -> AsyncGenerator[JsonLine, None]: ...

    def lines(self, *, parse: Parse | None = None) -> AsyncGenerator[str, None] | AsyncGenerator[JsonLine, None]:
        """Yields the lines of its standard output, or of its terminal, as text without their newlines.

        Invalid UTF-8 is replaced. A terminal ends lines with a carriage return, which is left out as well.

        Args:
            parse: "jsonl": lines come as JsonLine, each with the JSON document that it is, if it is one; None: as text.

        Raises:
            InvalidArgumentError: There is no such way to parse.
            IsolationError: As iteration.
        """
        check_parse(parse)
        return self._each_line(_text_of) if parse is None else self._each_line(json_line)

    async def write(self, data: bytes | str) -> None:
        """Writes to its standard input, or types into its terminal; text as UTF-8.

        Returns when the bytes are on their way. At most 256 KiB are: then it waits until the process takes some.

        Raises:
            ClosedError: Its input has ended, or it was detached.
            InputTakenError: Another attachment has become the writer.
            IsolationError: The process, or its workspace, is gone.
        """
        await self._attachment.write(check_bytes(data, "data"))

    async def send_eof(self) -> None:
        """Ends its standard input after what was written; in a terminal, types its end-of-file character (Ctrl-D).

        Raises:
            IsolationError: As `write`.
        """
        self._attachment.end_input()

    async def resize(self, columns: int, rows: int) -> None:
        """Gives its terminal another size, in characters, each from 1 to 65,535.

        Raises:
            InvalidArgumentError: No terminal can have that size.
            NoTerminalError: It was started here, without a terminal. Of one that was attached to, the service finds
                that out, and ends the attachment.
        """
        self._attachment.resize(TerminalSize(columns, rows))

    async def signal(self, number: int) -> None:
        """Sends a signal to the foreground of its terminal, or to the command where it has none.

        Raises:
            ProcessNotFoundError: It is no longer remembered.
            IsolationError: The number is no signal's, or the workspace cannot be reached.
        """
        await self._signal(self.id, number)

    async def kill(self) -> None:
        """Kills its whole process tree and returns when nothing of it is left.

        Raises:
            IsolationError: The workspace cannot be reached.
        """
        await self._kill(self.id)

    async def wait(self) -> Termination:
        """Waits for its end and returns how it ended. Output is dropped meanwhile unless somebody iterates over it.

        An iteration that takes nothing for ten seconds, though 256 KiB wait for it, counts as left.

        Raises:
            IsolationError: As iteration.
        """
        return await self._attachment.wait()

    async def detach(self) -> None:
        """Lets go of it without killing it. One that was not started detached dies after the linger, unless read again.

        The linger is the workspace's retry_timeout. May be called twice.
        """
        self._attachment.check_loop()
        self._owned = False
        await self.aclose()

    async def aclose(self) -> None:
        """Lets go of it, and kills it where leaving `async with` does. Goes on when cancelled.

        May be called twice: who calls while somebody closes it waits for that.
        """
        self._attachment.check_loop()
        if self._leaving:
            await self._left.wait()
            return
        self._leaving = True
        await finish(self._leave(kill=self._owned and self.termination is None))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _leave(self, *, kill: bool) -> None:
        try:
            await self._attachment.aclose()
            if kill:
                await give_up(lambda: self._kill(self.id))
        finally:
            self._left.set()

    async def _each_event(self) -> AsyncGenerator[Output | Gap | Exited, None]:
        with self._attachment.reading():
            while (event := await self._attachment.next()) is not None:
                yield event

    async def _each_line(self, make: Callable[[Line], _T]) -> AsyncGenerator[_T, None]:
        with self._attachment.reading():
            while self._lines or await self._read_lines():
                yield make(self._lines.popleft())

    async def _read_lines(self) -> bool:
        """Waits for lines; returns whether there are any more."""
        while not self._lines:
            event = await self._attachment.next()
            if event is None:
                self._lines += self._splitter.rest()
                break
            if isinstance(event, Gap):
                self._lines += self._splitter.cut()
            elif isinstance(event, Output) and event.source is OutputSource.STDOUT:
                self._lines += map(_without_return, self._splitter.split(event.data))
        return bool(self._lines)


def _without_return(line: Line) -> Line:
    return Line(line.text.removesuffix("\r"), line.whole)


def _text_of(line: Line) -> str:
    return line.text
