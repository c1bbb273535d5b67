"""The figures of a run, for people and for programs."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.chaos.findings import Violation
from tests.chaos.history import STALL, History
from tests.chaos.journal import Operation
from tests.chaos.settings import Settings

_SHOWN = 20
"""Violations that are printed; the others are in the file as well."""
_AROUND = 3.0
"""Seconds before and after an operation whose log lines go with its violation."""
_LONGEST_CONTEXT = 300
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run."""

    figures: dict[str, Any]
    violations: list[Violation]
    evidence: Path

    @property
    def good(self) -> bool:
        """Whether nothing was violated."""
        return not self.violations

    def write_json(self, path: Path) -> None:
        """Writes the figures, with the violations in words."""
        found = [{"kind": each.kind, "words": each.words, "operation": each.operation} for each in self.violations]
        path.write_text(json.dumps({**self.figures, "violations": found}, indent=2) + "\n", encoding="utf-8")

    def write_contexts(self) -> None:
        """Writes a file for each violation: the operation's journal, the faults and the service's log at that time."""
        directory = self.evidence / "violations"
        directory.mkdir(exist_ok=True)
        for number, violation in enumerate(self.violations, 1):
            text = "\n".join(_context(violation, self.evidence))
            (directory / f"{number:03d}.txt").write_text(text + "\n", encoding="utf-8")

    def __str__(self) -> str:
        figures = self.figures
        lines = [f"seed {figures['seed']}, {figures['minutes']:g} min of load, {figures['seconds']:.0f} s in all"]
        lines.append("faults: " + ", ".join(f"{count} {kind}" for kind, count in sorted(figures["faults"].items())))
        lines.append(f"{'operation':22}{'begun':>8}{'answered':>10}{'failed':>8}{'cut off':>9}{'longest':>10}")
        for name, row in sorted(figures["operations"].items()):
            lines.append(
                f"{name:22}{row['begun']:8}{row['acknowledged']:10}{row['failed']:8}{row['unanswered']:9}"
                f"{row['longest_seconds']:8.1f} s"
            )
        lines.append(
            f"{figures['commands_checked']} commands looked up in {figures['logs_read']} readings of logs, "
            f"{figures['connections']} connections, {figures['megabytes']:.0f} MB, "
            f"{figures['never_started']} containers created and never started, "
            f"{figures['held_for_nobody']} volumes that the engine let go of only at its next start"
        )
        if figures["longest_stall_seconds"]:
            lines.append(f"the machine stood still for up to {figures['longest_stall_seconds']} s")
        kinds = Counter(each.kind for each in self.violations)
        summary = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        lines.append(f"violations: {len(self.violations)}{': ' * bool(summary)}{summary}")
        lines += [f"  {number}. {each.words}" for number, each in enumerate(self.violations[:_SHOWN], 1)]
        if self.violations:
            lines.append(f"journals, logs and a file for each violation: {self.evidence}")
        return "\n".join(lines)


def report(
    settings: Settings,
    history: History,
    *,
    seconds: float,
    faults: Mapping[str, int],
    never_started: int,
    held_for_nobody: int,
    connections: int,
    megabytes: float,
    violations: list[Violation],
) -> Report:
    """Returns the report of a run that has been judged."""
    rows: dict[str, dict[str, Any]] = {}
    for operation in history.operations:
        row = rows.setdefault(
            f"{operation.kind} {operation.runtime}",
            {"begun": 0, "acknowledged": 0, "failed": 0, "unanswered": 0, "longest_seconds": 0.0},
        )
        row["begun"] += 1
        row[_outcome(operation)] += 1
        if operation.ended is not None:
            row["longest_seconds"] = max(row["longest_seconds"], round(operation.ended - operation.started, 3))
    read = {reading.workspace for reading in history.readings}
    stalls = [outage for outage in history.outages if outage.kind == STALL]
    figures = {
        "seed": settings.seed,
        "minutes": settings.minutes,
        "runtime": settings.runtime,
        "seconds": round(seconds, 1),
        "faults": dict(faults),
        "operations": rows,
        "logs_read": len(history.readings),
        "commands_checked": sum(1 for each in history.operations if each.kind in _COMMANDS and each.workspace in read),
        "longest_stall_seconds": round(max((each.ended - each.began for each in stalls), default=0.0), 1),
        "never_started": never_started,
        "held_for_nobody": held_for_nobody,
        "connections": connections,
        "megabytes": round(megabytes, 1),
    }
    return Report(figures, violations, settings.evidence)


_COMMANDS = ("execute", "stream", "abandon")


def _outcome(operation: Operation) -> str:
    if operation.acknowledged:
        return "acknowledged"
    return "unanswered" if operation.ended is None else "failed"


def _context(violation: Violation, evidence: Path) -> Iterator[str]:
    yield violation.words
    yield ""
    yield from violation.lines
    first = (violation.began if violation.began is not None else violation.at) - _AROUND
    last = violation.at + _AROUND
    yield ""
    for line in (evidence / "faults.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if first <= record["t"] <= last and record["event"] != "reading":
            yield line
    to_wall_clock = time.time() - time.monotonic()
    began, ended = (datetime.fromtimestamp(at + to_wall_clock, UTC) for at in (first, last))
    for log in sorted(evidence.glob("service-*.log")):
        lines = list(_between(log, began, ended))
        if lines:
            yield f"\n{log.name}, from {began:%H:%M:%S} to {ended:%H:%M:%S}"
            yield from lines[:_LONGEST_CONTEXT]


def _between(log: Path, began: datetime, ended: datetime) -> Iterator[str]:
    """Yields a log's lines of some time; lines without one, such as a traceback's, belong to the one before them."""
    inside = False
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if stamp := _STAMP.search(line):
            inside = began <= datetime.fromisoformat(stamp[0]) <= ended
        if inside:
            yield line
