"""The goals: what is claimed, as data. A run says of each what it measured, and whether the goal is met."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from benchmarks.results import Figures, ratio


class Kind(Enum):
    """How a figure is held against its goal."""

    FASTER = "times faster"
    """The reference's time divided by ours: at least."""
    MANY = "times as many"
    """Our rate divided by the reference's: at least."""
    TIMES = "times"
    """Our time divided by that of the references together: at most."""
    BELOW = "below"
    """Our median: at most."""
    BELOW_P95 = "p95 below"
    """Our 95th percentile: at most."""
    ALL = "all"
    """None is missing: at most 0."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal."""

    title: str
    metric: str
    contender: str
    kind: Kind
    bound: float
    references: Sequence[str] = ()
    unit: str = ""
    reference_metric: str = ""
    """Of the references, where it is another one."""
    full_only: bool = False
    """Whether only a run in full measures it: others have fewer workspaces or streams than it is about."""

    @property
    def embedded(self) -> str:
        """The contender that has the service in its own process, where the goal's has it in another; else empty."""
        road, _, place = self.contender.partition("/")
        return f"embedded/{place}" if road == "served" else ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run says of a goal."""

    goal: Goal
    figure: float | None = None
    """None: not measured."""
    embedded: float | None = None
    """The same of a service in the client's own process; None: not measured."""

    @property
    def met(self) -> bool | None:
        """Whether it is met; None: not measured."""
        return self._is_met(self.figure)

    @property
    def met_embedded(self) -> bool | None:
        """Whether a service in the client's own process meets it; None: not measured."""
        return self._is_met(self.embedded)

    def _is_met(self, figure: float | None) -> bool | None:
        if figure is None or math.isnan(figure):
            return None
        if self.goal.kind in (Kind.FASTER, Kind.MANY):
            return figure >= self.goal.bound
        return figure <= self.goal.bound


GOALS: Sequence[Goal] = (
    Goal(
        "Execute `true`, docker/runc, against aiodocker exec",
        "execute_ms",
        "served/runc",
        Kind.FASTER,
        30,
        ["aiodocker/runc"],
    ),
    Goal(
        "executes per second, 16 in flight, against aiodocker exec",
        "per_second_16",
        "served/runc",
        Kind.MANY,
        50,
        ["aiodocker/runc"],
    ),
    Goal(
        "Execute `true`, docker/gVisor, against aiodocker exec on gVisor",
        "execute_ms",
        "served/gvisor",
        Kind.FASTER,
        8,
        ["aiodocker/gvisor"],
    ),
    Goal(
        "Execute on the local provider against asyncio subprocess + one unary echo",
        "execute_ms",
        "served/local",
        Kind.TIMES,
        1.3,
        ["subprocess/host", "echo/served"],
    ),
    Goal(
        "create from the pool against cold create+start", "create_ms", "pool/runc", Kind.FASTER, 40, ["aiodocker/runc"]
    ),
    Goal("create from the pool", "create_ms", "pool/runc", Kind.BELOW, 10, unit="ms"),
    Goal(
        "cold create against raw aiodocker create+start, runc",
        "create_ms",
        "served/runc",
        Kind.TIMES,
        1.2,
        ["aiodocker/runc"],
    ),
    Goal(
        "cold create against raw aiodocker create+start, gVisor",
        "create_ms",
        "served/gvisor",
        Kind.TIMES,
        1.2,
        ["aiodocker/gvisor"],
    ),
    Goal("added latency per streamed line, p50", "line_ms", "served/runc", Kind.BELOW, 1.5, unit="ms"),
    Goal("added latency per streamed line, p95", "line_ms", "served/runc", Kind.BELOW_P95, 5, unit="ms"),
    Goal(
        "bulk stdout against raw aiodocker exec stream", "bulk_mib_s", "served/runc", Kind.MANY, 1.5, ["aiodocker/runc"]
    ),
    Goal(
        "1 MiB file write + read against put_archive + get_archive",
        "file_ms",
        "served/runc",
        Kind.FASTER,
        5,
        ["aiodocker/runc"],
    ),
    Goal("service memory per idle workspace", "service_pss_kib", "served/runc", Kind.BELOW, 200, unit="KiB"),
    Goal("guest, resident", "guest_rss_kib", "served/runc", Kind.BELOW, 6 * 1024, unit="KiB"),
    Goal(
        "1,000 streams on 50 workspaces, one line a second each: lines lost",
        "stream_lines_lost",
        "served/runc",
        Kind.ALL,
        0,
        full_only=True,
    ),
    Goal(
        "1,000 streams on 50 workspaces: latency, p95",
        "stream_line_ms",
        "served/runc",
        Kind.BELOW_P95,
        50,
        unit="ms",
        full_only=True,
    ),
)


def outcomes(figures: Figures, scale: str, goals: Sequence[Goal] = GOALS) -> list[Outcome]:
    """Returns what the figures of a run at a scale say of each goal."""
    whole = scale == "full"
    return [
        Outcome(goal)
        if goal.full_only and not whole
        else Outcome(goal, _figure(goal, goal.contender, figures), _figure(goal, goal.embedded, figures))
        for goal in goals
    ]


def _figure(goal: Goal, contender: str, figures: Figures) -> float | None:
    ours = figures.get(goal.metric, {}).get(contender)
    found = [figures.get(goal.reference_metric or goal.metric, {}).get(name) for name in goal.references]
    references = [figure.rounds for figure in found if figure is not None]
    if ours is None or len(references) != len(goal.references):
        return None
    if goal.kind is Kind.BELOW_P95:
        return ours.p95
    if not references:
        return ours.median
    together = [sum(rounds) for rounds in zip(*references, strict=False)]
    return ratio(together, ours.rounds) if goal.kind is Kind.FASTER else ratio(ours.rounds, together)
