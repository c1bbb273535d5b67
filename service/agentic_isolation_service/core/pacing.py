"""How many places a pool keeps ready, and how fast it makes them. Nothing here waits or makes anything."""

from __future__ import annotations

import math
from collections import deque

DUTY = 0.5
"""The share of the time in which places may be made, while there are some."""
HALF_LIFE = 120.0
"""Seconds in which what was asked for at most counts half."""
SHORTEST_WINDOW, LONGEST_WINDOW = 5.0, 60.0
"""Seconds in which requests are counted."""
_FIRST_GUESS = 1.0
"""Seconds that making a place takes, as long as none was made."""
_WEIGHT = 0.3
"""Of the last place that was made, in the mean of what they take."""
_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds before the next attempt, by the attempts that have failed in a row."""


class Demand:
    """How many places one pool should have, by what was asked of it. Times are seconds of any clock.

    It counts the requests of a window that is as long as making all places takes, as so many may come before they are
    replaced. The count rises at once and falls by half in HALF_LIFE.

    Args:
        least: Places that there should be always.
        most: Places that there should be at most.
    """

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self._asked: deque[float] = deque(maxlen=most)
        self._making = _FIRST_GUESS
        self._level = 0.0
        self._level_at = 0.0

    def ask(self, now: float) -> None:
        """Takes note of a request."""
        self._asked.append(now)
        self._settle(now)

    def expect(self, count: int, now: float) -> None:
        """Takes note of how many there were before, in the service's last process."""
        self._settle(now)
        self._level = max(self._level, float(min(count, self._most)))

    def made(self, seconds: float) -> None:
        """Takes note of how long making a place took."""
        self._making += _WEIGHT * (seconds - self._making)

    def wanted(self, now: float) -> int:
        """Returns how many places there should be now."""
        self._settle(now)
        return min(self._most, max(self._least, math.ceil(self._level - 0.5)))

    def _settle(self, now: float) -> None:
        window = min(max(self._most * self._making / DUTY, SHORTEST_WINDOW), LONGEST_WINDOW)
        while self._asked and self._asked[0] < now - window:
            self._asked.popleft()
        faded = self._level * 0.5 ** (max(now - self._level_at, 0) / HALF_LIFE)
        self._level, self._level_at = max(faded, float(len(self._asked))), now


def rest_after(seconds: float) -> float:
    """Returns the seconds for which no place is made after one whose making took so long."""
    return seconds * (1 / DUTY - 1)


def pause_after(failures: int) -> float:
    """Returns the seconds before the next attempt after so many that have failed in a row."""
    return _PAUSES[min(failures, len(_PAUSES)) - 1] if failures else 0.0
