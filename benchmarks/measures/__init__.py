"""What is measured. A measure takes one round's turn of a contender and returns samples by metric (metrics.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.contender import Stage
from benchmarks.measures import commands, crowd, files, lifecycle, memory, output, startup, streams
from benchmarks.scale import Scale

Samples = Mapping[str, Sequence[float]]
Turn = Callable[[Stage, Scale], Awaitable[Samples]]


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing to measure."""

    turn: Turn
    contenders: tuple[str, ...] = ("*",)
    """Patterns of the names of those that it makes sense for."""
    rounds: str = "rounds"
    """Field of Scale with their number; empty: one."""


_OURS = ("served/*",)
_PACKAGES = ("served/local", "aiodocker/runc", "docker-py/*", "llm-sandbox/*", "swe-rex/*", "inspect-ai/*")

MEASURES: Mapping[str, Measure] = {
    "lifecycle": Measure(lifecycle.turn),
    "execute": Measure(commands.execute),
    "rate": Measure(commands.rates),
    "first-line": Measure(output.first_line),
    "lines": Measure(output.lines),
    "bulk": Measure(output.bulk, rounds="few_rounds"),
    "file": Measure(files.small),
    "large-file": Measure(files.large, rounds="few_rounds"),
    "memory": Measure(memory.turn, _OURS, rounds=""),
    "crowd": Measure(crowd.turn, _OURS, rounds=""),
    "streams": Measure(streams.turn, _OURS, rounds=""),
    "start": Measure(startup.service, ("served/local",)),
    "import": Measure(startup.package, _PACKAGES),
}
"""In the order in which they are taken."""
