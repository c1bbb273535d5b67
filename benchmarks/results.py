"""What a run has found, and how it is summed up."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.metrics import METRICS


def percentile(samples: Sequence[float], share: float) -> float:
    """Returns the smallest sample that so large a share of them does not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@dataclass(frozen=True, slots=True)
class Figure:
    """One contender's figures in one metric: those of all rounds together, and the median of each."""

    median: float
    p95: float
    low: float
    high: float
    count: int
    rounds: Sequence[float]

    @classmethod
    def of(cls, rounds: Sequence[Sequence[float]]) -> Figure:
        """Sums up the samples of each round."""
        samples = [sample for taken in rounds for sample in taken]
        return cls(
            median=statistics.median(samples),
            p95=percentile(samples, 0.95),
            low=min(samples),
            high=max(samples),
            count=len(samples),
            rounds=[statistics.median(taken) for taken in rounds],
        )


@dataclass
class Results:
    """Samples by metric and contender, a list for each round; and who has none in which measure, and why."""

    samples: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    """By contender and measure."""

    def add(self, contender: str, samples: Mapping[str, Sequence[float]]) -> None:
        """Takes what a contender's turn has given."""
        for metric, taken in samples.items():
            if taken:
                self.samples.setdefault(metric, {}).setdefault(contender, []).append(list(taken))

    def miss(self, contender: str, measure: str, why: str) -> None:
        """Notes that a contender has no figures in a measure, or in any ("")."""
        self.missing.setdefault(contender, {})[measure] = why

    def figures(self) -> dict[str, dict[str, Figure]]:
        """Returns the figures by metric, in the order of METRICS, and contender."""
        known = [metric for metric in METRICS if metric in self.samples]
        return {
            metric: {contender: Figure.of(rounds) for contender, rounds in self.samples[metric].items()}
            for metric in known
        }


Figures = Mapping[str, Mapping[str, Figure]]


def figures_from_json(document: Mapping[str, Any]) -> dict[str, dict[str, Figure]]:
    """Returns the figures of a document that report.document has made."""
    return {
        metric: {contender: Figure(**figure) for contender, figure in document["figures"][metric].items()}
        for metric in METRICS
        if metric in document["figures"]
    }


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Returns the median of the ratios round by round: what made a round slow has hit both."""
    pairs = [(one, other) for one, other in zip(above, below, strict=False) if other]
    return statistics.median([one / other for one, other in pairs]) if pairs else float("nan")
