"""What a run has found to be wrong."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.chaos.journal import Operation

_STAMP = re.compile(r"\d{4}-\d\d-\d\dT")
"""What entries of the service's log begin with; further lines belong to the one before them."""
_COMPLAINT = re.compile(
    r"Traceback|\[(error|critical) *\]|Exception ignored|never (retrieved|awaited)|was destroyed but"
)
_CLIENT_HAS_GONE = "ExecuteBatchError raised in core"
"""gRPC's word for an answer that nobody takes any more."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be."""

    kind: str
    """What has been violated, in a word or two: counted by it."""
    words: str
    at: float
    """When, by the monotonic clock."""
    operation: str = ""
    """The id of the operation that it is about, if it is about one."""
    began: float | None = None
    """When that operation began."""
    lines: tuple[str, ...] = field(default=(), repr=False)
    """Its lines of the journal."""

    @classmethod
    def about(cls, kind: str, operation: Operation, words: str, *, at: float | None = None) -> Self:
        """Returns one that is about an operation, at its end or at another time."""
        subject = f"{operation.kind} {operation.id} ({operation.runtime} {operation.workspace})"
        when = at if at is not None else (operation.ended or operation.started)
        return cls(kind, f"{subject}: {words}", when, operation.id, operation.started, tuple(operation.lines))


def complaints(log: Path) -> list[str]:
    """Returns the lines of a program's standard error that tell of its defects."""
    found, harmless = [], False
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if _STAMP.match(line):
            harmless = _CLIENT_HAS_GONE in line
        if _COMPLAINT.search(line) and not harmless:
            found.append(line)
    return found


class Findings:
    """Collects violations that the harness itself comes by."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def add(self, kind: str, words: str) -> None:
        """Notes one, now."""
        self.violations.append(Violation(kind, words, time.monotonic()))
