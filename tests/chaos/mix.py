"""The mix of operations: which one comes next, drawn by chance."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

from tests.chaos.jobs import Job
from tests.chaos.operations import WorkspaceDeeds, random_content

Step = Callable[[], Awaitable[None]]
_PATHS = tuple(f"files/{number}" for number in range(4))
_LINE_BYTES = 25
"""About as long is a line of a command's output."""
_TIMEOUT = 3.0
"""Seconds: long enough for a busy machine to start a command."""


class Mix:
    """Draws the operations on one workspace.

    Args:
        deeds: What can be done.
        chance: Where chance comes from.
    """

    def __init__(self, deeds: WorkspaceDeeds, chance: random.Random) -> None:
        self._deeds = deeds
        self._chance = chance
        self._written: list[str] = []
        self._draws: dict[Callable[[], Step], int] = {
            self._quick: 6,
            self._slow: 4,
            self._bulky: 2,
            self._truncated: 1,
            self._failing: 2,
            self._timing_out: 1,
            self._abandoned: 1,
            self._burst: 3,
            self._drip: 4,
            self._write: 4,
            self._read: 4,
        }

    def draw(self) -> Step:
        """Returns an operation that has not begun."""
        [kind] = self._chance.choices(list(self._draws), list(self._draws.values()))
        return kind()

    def _job(
        self,
        stdout_lines: int = 1,
        *,
        stderr_lines: int = 0,
        pause: float | None = None,
        exit_code: int = 0,
        timeout: float | None = None,
    ) -> Job:
        return Job(
            token=self._deeds.next_token(),
            stdout_lines=stdout_lines,
            stderr_lines=stderr_lines,
            pause=pause,
            exit_code=exit_code,
            timeout=timeout,
        )

    def _quick(self) -> Step:
        return partial(self._deeds.execute, self._job())

    def _slow(self) -> Step:
        pause = round(self._chance.uniform(0.1, 3), 2)
        return partial(self._deeds.execute, self._job(self._chance.randint(1, 2), pause=pause))

    def _bulky(self) -> Step:
        lines = self._chance.randrange(1000, (1 << 20) // _LINE_BYTES)
        return partial(self._deeds.execute, self._job(lines, stderr_lines=self._chance.choice([0, lines])))

    def _truncated(self) -> Step:
        lines = self._chance.randrange(1000, 100_000)
        return partial(self._deeds.execute, self._job(lines), output_limit=self._chance.randrange(1, 1 << 14))

    def _failing(self) -> Step:
        return partial(self._deeds.execute, self._job(stderr_lines=1, exit_code=self._chance.randint(1, 255)))

    def _timing_out(self) -> Step:
        return partial(self._deeds.execute, self._job(timeout=_TIMEOUT))

    def _abandoned(self) -> Step:
        after = self._chance.choice([0.0, self._chance.uniform(0, 0.1), self._chance.uniform(0, 2)])
        return partial(self._deeds.abandon, self._job(30, pause=0.1), after)

    def _burst(self) -> Step:
        lines = self._chance.randrange(1000, 200_000)
        return self._stream(lines, pause=None)

    def _drip(self) -> Step:
        return self._stream(self._chance.randint(5, 60), pause=self._chance.choice([0.02, 0.1, 0.2]))

    def _stream(self, lines: int, pause: float | None) -> Step:
        exit_code = self._chance.choice([0, 0, 7])
        if self._chance.random() < 0.5:
            return partial(self._deeds.stream_lines, self._job(lines, pause=pause, exit_code=exit_code))
        stderr_lines = self._chance.choice([0, lines])
        job = self._job(lines, stderr_lines=stderr_lines, pause=pause, exit_code=exit_code)
        return partial(self._deeds.stream_events, job)

    def _write(self) -> Step:
        path = self._chance.choice(_PATHS)
        content = random_content(self._chance)

        async def write() -> None:
            if await self._deeds.write(path, content):
                self._written.append(path)

        return write

    def _read(self) -> Step:
        if not self._written:
            return self._write()
        return partial(self._deeds.read, self._chance.choice(self._written))
