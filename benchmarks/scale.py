"""How much is measured: in full, quickly while one works, or just enough to see that the suite itself works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Counts and lengths of the measurements."""

    rounds: int
    """How often every contender has its turn in each measure."""
    few_rounds: int
    """The same, in measures that take seconds."""
    count: int
    """Samples of a latency in a round, at most."""
    seconds: float
    """Length of a round's latency or rate measurement, at most."""
    lifecycles: int
    """Workspaces that are created and destroyed in a round."""
    lines: int
    """Lines of a stream in a round, one each 10 ms."""
    bulk_bytes: int
    """Of standard output."""
    file_bytes: int
    """Of the large file."""
    workspaces: int
    """Idle ones whose memory is measured."""
    idle: int
    busy: int
    """Workspaces of the crowd."""
    streams: int
    stream_workspaces: int
    stream_lines: int
    """Lines of each stream, one a second."""


FULL = Scale(
    rounds=5,
    few_rounds=3,
    count=200,
    seconds=0.7,
    lifecycles=2,
    lines=100,
    bulk_bytes=256 << 20,
    file_bytes=100 << 20,
    workspaces=50,
    idle=100,
    busy=10,
    streams=1000,
    stream_workspaces=50,
    stream_lines=30,
)
QUICK = Scale(
    rounds=2,
    few_rounds=1,
    count=100,
    seconds=0.4,
    lifecycles=1,
    lines=100,
    bulk_bytes=64 << 20,
    file_bytes=20 << 20,
    workspaces=10,
    idle=20,
    busy=10,
    streams=200,
    stream_workspaces=10,
    stream_lines=6,
)
SMOKE = Scale(
    rounds=1,
    few_rounds=1,
    count=2,
    seconds=0.05,
    lifecycles=1,
    lines=3,
    bulk_bytes=1 << 20,
    file_bytes=1 << 20,
    workspaces=2,
    idle=1,
    busy=1,
    streams=2,
    stream_workspaces=1,
    stream_lines=3,
)
SCALES = {"full": FULL, "quick": QUICK, "smoke": SMOKE}
