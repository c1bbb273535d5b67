"""How much of its time a thread has work to do, whether it gets a processor for it or not."""

from __future__ import annotations

import contextlib
import os
import time

_SCHEDSTAT = "/proc/thread-self/schedstat"
"""Nanoseconds that a thread has run, and that it has waited for a processor (Documentation/scheduler/sched-stats)."""


class ThreadTime:
    """What the thread that asks has wanted of the processors."""

    def __init__(self) -> None:
        self._before = _wanted()

    def since_last(self) -> float:
        """Returns the seconds since this was last asked, or made, in which the thread had work to do."""
        now = _wanted()
        since, self._before = now - self._before, now
        return since


def _wanted() -> float:
    with contextlib.suppress(OSError, ValueError):  # macOS, and kernels without CONFIG_SCHED_INFO
        file = os.open(_SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
        try:
            ran, waited, *_ = os.pread(file, 128, 0).split()
        finally:
            os.close(file)
        return (int(ran) + int(waited)) / 1e9
    return time.thread_time()  # without the waiting
