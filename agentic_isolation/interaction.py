"""Values of interactive and background processes: terminals, how far their input is, what a listing says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from agentic_isolation.runs import StreamEvent, Termination

__all__ = ["AttachEvent", "InputProgress", "ProcessInfo", "TerminalSize"]


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """Size of a terminal in characters, each from 1 to 65,535."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class InputProgress:
    """How far a process's standard input has been taken."""

    offset: int
    """Bytes taken since the process began, whoever has written them."""
    ended: bool
    """Nothing more will be taken."""


AttachEvent = StreamEvent | InputProgress
"""What an attachment consists of."""


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process that was started in a workspace, as a listing describes it."""

    id: str
    args: Sequence[str]
    """Program and arguments; long ones are cut."""
    started_at: datetime
    cpu_seconds: float
    """User and system time of its tree so far."""
    memory_bytes: int
    """Resident memory of its tree now; when it has ended, of what it has left in the background."""
    processes: int
    """Processes of its tree that run now; when it has ended, those that it has left in the background."""
    output_bytes: int
    """Bytes that it has written: the offset from which a reader sees only what is to come."""
    terminal: bool
    """Whether it has a terminal."""
    detached: bool
    """Whether it was started detached."""
    termination: Termination | None = None
    """How it ended; None while it runs."""

    @property
    def running(self) -> bool:
        """Whether its command still runs."""
        return self.termination is None
