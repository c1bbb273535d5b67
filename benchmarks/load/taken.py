"""What one run of a load generator has taken."""

from __future__ import annotations

from dataclasses import dataclass


class NotTaken(Exception):  # noqa: N818 - an answer, not a fault
    """There are no figures; the message says why."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The figures of one run."""

    rate: float
    """Calls a second, those that failed left out."""
    p50_ms: float
    p99_ms: float
    count: int
    """Calls in all."""
    failed: int
    """Of these."""
