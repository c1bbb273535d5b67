"""What is measured. A measure takes one round's turn of a contender and returns samples by metric (metrics.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.contender import Stage
from benchmarks.measures import clock, commands, crowd, files, lifecycle, memory, output, startup, streams
from benchmarks.scale import Scale

Samples = Mapping[str, Sequence[float]]
Turn = Callable[[Stage, Scale], Awaitable[Samples]]


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing to measure."""

    turn: Turn
    contenders: tuple[str, ...] = ("*",)
    """Patterns of the names of those that it makes sense for."""
    without: tuple[str, ...] = ()
    """Patterns of those among them for which it makes none."""
    rounds: str = "rounds"
    """Field of Scale with the number of rounds; empty: one."""


_OURS = ("served/*",)
_POOLS = ("pool/*",)
"""Their workspaces are like any other, once they are there."""
_PACKAGES = ("served/local", "aiodocker/runc", "docker-py/*", "llm-sandbox/*", "swe-rex/*", "inspect-ai/*")

MEASURES: Mapping[str, Measure] = {
    "lifecycle": Measure(lifecycle.turn),
    # Before anything large goes through the service: what it gives back of that would be taken off.
    "memory": Measure(memory.turn, _OURS, rounds=""),
    "execute": Measure(commands.execute, without=_POOLS),
    "rate": Measure(commands.rates, without=_POOLS),
    "first-line": Measure(output.first_line, without=_POOLS),
    "lines": Measure(output.lines, without=_POOLS),
    "clock": Measure(clock.turn, ("served/*",), rounds=""),
    "bulk": Measure(output.bulk, without=_POOLS, rounds="few_rounds"),
    "file": Measure(files.small, without=_POOLS),
    "large-file": Measure(files.large, without=_POOLS, rounds="few_rounds"),
    "streams": Measure(streams.turn, _OURS, rounds=""),
    "start": Measure(startup.service, ("served/local",)),
    "import": Measure(startup.package, _PACKAGES),
    # Last: where a crowd is too much for the machine, its end weighs on whoever comes next.
    "crowd": Measure(crowd.turn, _OURS, rounds=""),
}
"""In the order in which they are taken."""
