"""What a chaos run is made of: its seed, its length, its load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LEASE = 60.0
"""Seconds that a workspace outlives the client that made it."""
RETRY_TIMEOUT = 60.0
"""Seconds of unavailability that a client outlasts, by default."""
RUN_LABEL = "agentic-isolation.chaos-run"
"""The label that everything of a run has in the engine; its value is the run's name."""
RUNTIMES = {"runc": ("runc",), "gvisor": ("runsc",), "both": ("runc", "runsc")}
"""The runtimes that workspaces are asked to have, by the word for them on the command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to run."""

    seed: int
    minutes: float
    """Of load and faults. What comes before and after takes up to two minutes more."""
    runtime: str
    """One of RUNTIMES."""
    evidence: Path
    """Directory of journals and logs."""
    clients: int = 4
