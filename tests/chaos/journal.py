"""Journals: what a program was about to do and what it was told, line by line, so that its SIGKILL loses nothing.

A line is a JSON object with the time `t` (seconds of the monotonic clock, which all processes of a machine share) and
an `event`. Of an operation there is `start`, perhaps `progress`, and then `ok` or `fail`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Journal:
    """Appends to a file. Each record is one write(2): it is the kernel's, and safe, when `write` returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._file)

    def write(self, event: str, **members: Any) -> float:
        """Appends a record and returns its time."""
        now = time.monotonic()
        os.write(self._file, json.dumps({"t": now, "event": event, **members}).encode() + b"\n")
        return now


@dataclass(slots=True)
class Operation:
    """One thing that a client has asked for."""

    id: str
    """Unique in a run. For commands it is the token as well."""
    client: str
    kind: str
    """`create`, `destroy`, `execute`, `stream`, `abandon`, `log`, `write` or `read`."""
    workspace: str
    """Its id; empty for `create`."""
    runtime: str
    asked: dict[str, Any]
    started: float
    ended: float | None = None
    answer: dict[str, Any] | None = None
    """What came of it; None where it failed or has not ended."""
    reason: str | None = None
    """Why it failed."""
    progress: dict[str, Any] | None = None
    """Of a stream that has not ended: what had come so far."""
    lines: list[str] = field(default_factory=list, repr=False)
    """Its lines of the journal."""

    @property
    def acknowledged(self) -> bool:
        """Whether its client was told that it was done."""
        return self.answer is not None


def records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields a journal's lines, as text and decoded. A last line that a SIGKILL has cut is left out."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield line.decode(), json.loads(line)


def operations(journals: Iterable[Path]) -> list[Operation]:
    """Returns what clients have asked for, from their journals, in order of time."""
    found: dict[str, Operation] = {}
    for path in journals:
        for line, record in records(path):
            match record["event"]:
                case "start":
                    operation = found[record["op"]] = Operation(
                        record["op"],
                        path.stem,
                        record["kind"],
                        record["workspace"],
                        record["runtime"],
                        record["asked"],
                        record["t"],
                    )
                case "progress":
                    operation = found[record["op"]]
                    operation.progress = record["answer"]
                case "ok":
                    operation = found[record["op"]]
                    operation.ended, operation.answer = record["t"], record["answer"]
                case "fail":
                    operation = found[record["op"]]
                    operation.ended, operation.reason = record["t"], record["reason"]
                case event:
                    raise ValueError(f"{path} has an event {event!r}")
            operation.lines.append(line)
    return sorted(found.values(), key=lambda operation: operation.started)
