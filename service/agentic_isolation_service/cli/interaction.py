"""One person's terminal, or a pipe, and a process in a workspace: what goes in and what comes out."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import TypeVar

from agentic_isolation import Exited, Gap, Output, OutputSource, Process, Termination
from agentic_isolation_service.cli import terminal
from agentic_isolation_service.cli.detaching import DetachKeys

_T = TypeVar("_T")
_HOLDING_SECONDS = 0.5
"""For which the first of the detach keys waits for the next one."""


class Interaction:
    """Passes standard input on to a process and its output to standard output and standard error.

    Args:
        process: It has a terminal, or plain pipes.
        has_terminal: Which of them; then standard input is a terminal, and is made raw.
        detach_keys: What leaves the process running when it is typed.
    """

    def __init__(self, process: Process, *, has_terminal: bool, detach_keys: bytes) -> None:
        self._process = process
        self._has_terminal = has_terminal
        self._keys = DetachKeys(detach_keys)
        self._input = sys.stdin.fileno()
        self._resized = asyncio.Event()

    async def run(self) -> Termination | None:
        """Goes on until the process ends, and returns how; None where it was detached by the keys."""
        async with contextlib.AsyncExitStack() as resources:
            if self._has_terminal:
                resources.enter_context(terminal.raw(self._input, self._resized.set))
                await resources.enter_async_context(_beside(self._follow_size()))
            typing = await resources.enter_async_context(_beside(self._pass_input()))
            showing = await resources.enter_async_context(_beside(self._pass_output()))
            await asyncio.wait((typing, showing), return_when=asyncio.FIRST_COMPLETED)
            if not showing.done() and typing.result():
                return None
            return await showing

    async def _follow_size(self) -> None:
        while True:
            await self._resized.wait()
            self._resized.clear()
            size = terminal.terminal_size(self._input)
            await self._process.resize(size.columns, size.rows)

    async def _pass_input(self) -> bool:
        """Returns at the end of the input; whether that was for the detach keys."""
        while typed := await self._read():
            passed, detached = self._keys.feed(typed)
            if passed:
                await self._process.write(passed)
            if detached:
                return True
        await self._process.send_eof()
        return False

    async def _read(self) -> bytes:
        while self._keys.is_holding:
            try:
                async with asyncio.timeout(_HOLDING_SECONDS):
                    return await terminal.read(self._input)
            except TimeoutError:
                await self._process.write(self._keys.release())
        return await terminal.read(self._input)

    async def _pass_output(self) -> Termination:
        with terminal.Writer(sys.stdout.fileno()) as stdout, terminal.Writer(sys.stderr.fileno()) as stderr:
            outputs = {OutputSource.STDOUT: stdout, OutputSource.STDERR: stderr}
            async for event in self._process:
                if isinstance(event, Output):
                    await outputs[event.source].write(event.data)
                elif isinstance(event, Gap):
                    await stderr.write(
                        f"\r\nagentic-isolation: {event.lost_bytes} bytes of output are lost\r\n".encode()
                    )
                elif isinstance(event, Exited):
                    return event.termination
        raise AssertionError("a process's events end with Exited")


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[object, object, _T]) -> AsyncIterator[asyncio.Task[_T]]:
    """Runs something beside the rest, until this is left."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
