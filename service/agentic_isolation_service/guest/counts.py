"""What has gone on with guests, counted as it happens and read by whoever wants to know."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from agentic_isolation.runs import TerminationCause

SECONDS_OF_COMMANDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""Up to these the durations of commands are told apart."""


class Distribution:
    """How many values there were up to each of some bounds, and what they come to together.

    Args:
        bounds: Ascending. What is above the last one is counted too.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Of the values up to each bound and above the one before; the last one of those above all bounds."""
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Counts a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(slots=True, eq=False)
class GuestCounts:
    """What has gone on with one provider's guests since this process began. It only grows."""

    commands: defaultdict[TerminationCause, Distribution] = field(
        default_factory=lambda: defaultdict(lambda: Distribution(SECONDS_OF_COMMANDS))
    )
    """Seconds that commands have taken whose end was told to somebody, by the cause of their end; each counts once."""
    traffic: Counter[str] = field(default_factory=Counter)
    """Bytes by what they were: `output` and `input` of processes, `download` and `upload` of files and archives."""
    reconnects: int = 0
    """Links that took the place of one that had ended."""
    link_failures: int = 0
    """Links that could not be made, to guests that may still be there."""
    lost: int = 0
    """Guests that were found gone, or broke the protocol, before any end that was set for them."""
