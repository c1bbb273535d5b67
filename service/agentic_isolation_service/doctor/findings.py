"""What the doctor finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from agentic_isolation.models import Isolation


class Status(Enum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    """It works, with less than there could be."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One look at what workspaces need."""

    name: str
    status: Status
    detail: str


class Outcome(Enum):
    """How an attack ended."""

    BLOCKED = "blocked"
    NOT_BLOCKED = "not_blocked"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An attack's outcome."""

    outcome: Outcome
    detail: str
    """What was tried and what was answered."""


def blocked(detail: str) -> Verdict:
    """Returns the verdict on an attack that was held."""
    return Verdict(Outcome.BLOCKED, detail)


def not_blocked(detail: str) -> Verdict:
    """Returns the verdict on an attack that got through."""
    return Verdict(Outcome.NOT_BLOCKED, detail)


def not_applicable(detail: str) -> Verdict:
    """Returns the verdict on an attack that there was nothing for."""
    return Verdict(Outcome.NOT_APPLICABLE, detail)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attack as it went under a profile."""

    name: str
    title: str
    outcome: Outcome
    promised: bool
    """Whether the profile promises to block it."""
    detail: str
    reason: str = ""
    """Why it is not promised, where it is not."""

    @property
    def breaks_promise(self) -> bool:
        """Whether it got through where the profile promises that it does not."""
        return self.promised and self.outcome is Outcome.NOT_BLOCKED


@dataclass(frozen=True, slots=True)
class ProfileFindings:
    """How workspaces of one profile held."""

    profile: str
    isolation: Isolation | None
    """None: no workspace could be made."""
    attempts: Sequence[Attempt]

    @property
    def ok(self) -> bool:
        """Whether the profile kept its promises."""
        return self.isolation is not None and not any(attempt.breaks_promise for attempt in self.attempts)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that the doctor found."""

    checks: Sequence[Check]
    profiles: Sequence[ProfileFindings]

    @property
    def ok(self) -> bool:
        """Whether nothing failed and every profile that was attacked kept its promises."""
        return all(check.status is not Status.FAILED for check in self.checks) and all(
            findings.ok for findings in self.profiles
        )
