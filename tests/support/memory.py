"""Watching that processes stay small while much goes through them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.support import proc

FLAT = 64 << 20
"""Bytes that a process may grow by, at its peak, while a multiple of it goes through."""


@contextlib.contextmanager
def stays_flat(*pids: int, within: int = FLAT) -> Iterator[None]:
    """Fails when one of the processes takes, even for a moment, so much more memory than before."""
    before = {}
    for pid in pids:
        proc.reset_peak(pid)
        before[pid] = proc.resident_bytes(pid)
    yield
    grown = {pid: proc.peak_bytes(pid) - size for pid, size in before.items()}
    assert all(growth <= within for growth in grown.values()), f"processes grew by {grown} bytes"
