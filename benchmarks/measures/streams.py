"""Many streams at once, each with a line a second: does every line come, and how late?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from functools import partial

from benchmarks.contender import Place, Stage
from benchmarks.scale import Scale
from benchmarks.timing import at_most

_AT_A_TIME = 8
_TICKING = 'exec 9<> <(:); for ((i = 0; i < $0; i++)); do read -rt 1 -u 9; echo "${EPOCHREALTIME/,/.}"; done'
"""Prints the time each second, without a process for it: a thousand of these leave the machine to what is measured."""


@dataclass
class _Record:
    """What came: when each line was printed, and how many milliseconds later it was here."""

    printed: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    began: list[float] = field(default_factory=list)
    """When each stream's first line came."""


async def turn(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Counts all lines, and takes the latency of those that were printed while all streams ran."""
    contender = stage.contender
    places: list[Place] = []
    record = _Record()

    async def add() -> None:
        places.append(await contender.create())

    try:
        await at_most(_AT_A_TIME, [add] * scale.stream_workspaces)
        async with asyncio.TaskGroup() as readers:
            for number in range(scale.streams):
                readers.create_task(_read(places[number % len(places)], scale.stream_lines, record))
                await asyncio.sleep(1 / 256)  # so that their lines are spread over the second
        lost = scale.streams * scale.stream_lines - len(record.late)
    finally:
        await at_most(_AT_A_TIME, [partial(contender.destroy, place) for place in places])
    all_run, one_ends = max(record.began), min(record.began) + scale.stream_lines - 1
    late = [ms for when, ms in zip(record.printed, record.late, strict=True) if all_run <= when <= one_ends]
    if not late:
        raise RuntimeError(
            f"the streams never ran all at once: the last began {all_run - min(record.began):.1f} s late"
        )
    return {"stream_line_ms": late, "stream_lines_lost": [lost]}


async def _read(place: Place, count: int, record: _Record) -> None:
    async with contextlib.aclosing(place.lines(["bash", "-c", _TICKING, str(count)])) as lines:
        first = True
        async for line in lines:
            now = time.time()
            if first:
                record.began.append(now)
                first = False
            record.printed.append(float(line))
            record.late.append((now - float(line)) * 1000)
