"""A run: every measure, round by round, every contender in its turn."""

from __future__ import annotations

import asyncio
import fnmatch
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks import peers
from benchmarks.measures import MEASURES, Measure
from benchmarks.profiling import profile
from benchmarks.results import Results
from benchmarks.roster import Entry
from benchmarks.scale import Scale
from benchmarks.worker_process import Missing, WorkerProcess

Say = Callable[[str], None]


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Returns whether a name is meant by one of the patterns, with * for anything."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


class Suite:
    """The workers of a run, and what they have found. Left, it ends them.

    Args:
        entries: The contenders.
        scale: How much to measure.
        log: File for what the workers say.
        say: Is told how far it is.
    """

    def __init__(self, entries: Sequence[Entry], scale: Scale, log: Path, say: Say) -> None:
        self.results = Results()
        self._entries = entries
        self._scale = scale
        self._log = log
        self._say = say
        self._workers: dict[str, WorkerProcess] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.gather(*(worker.aclose() for worker in self._workers.values()))

    async def start(self) -> None:
        """Starts the workers, one after the other. Those that do not start are missing."""
        for entry in self._entries:
            self._say(f"starting {entry.name}")
            try:
                python = Path(sys.executable)
                if entry.peer:
                    python = await asyncio.to_thread(peers.interpreter, entry.peer)
                self._workers[entry.name] = await WorkerProcess.start(entry, python, self._log)
            except Missing as missing:
                self._say(f"{entry.name} is missing: {missing}")
                self.results.miss(entry.name, "", str(missing))

    async def profile(self, measures: Iterable[str], directory: Path) -> None:
        """Profiles a turn of each contender in each measure into a directory of its own below `directory`."""
        for measure in measures:
            for name, worker in self._workers.items():
                self._say(f"profiling {measure}: {name}")
                home = directory / name.replace("/", "-") / measure
                home.mkdir(parents=True)
                try:
                    written = await profile(worker, measure, self._scale, home)
                except Missing as missing:
                    self._say(f"{name}, {measure}: {missing}")
                else:
                    self._say(f"{name}, {measure}: {' '.join(str(path) for path in written)}")

    async def run(self, measures: Mapping[str, Measure] = MEASURES) -> None:
        """Takes measures."""
        for name, measure in measures.items():
            rounds = getattr(self._scale, measure.rounds) if measure.rounds else 1
            asked = [name for name in self._workers if matches(name, measure.contenders)]
            left = [name for name in asked if not matches(name, measure.without)]
            for number in range(rounds):
                for contender in list(left):
                    self._say(f"{name}, round {number + 1} of {rounds}: {contender}")
                    try:
                        self.results.add(contender, await self._workers[contender].turn(name, self._scale))
                    except Missing as missing:
                        self.results.miss(contender, name, str(missing))
                        left.remove(contender)
