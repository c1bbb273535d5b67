"""When there is more to do than the service can, and whose calls it then refuses. Nothing here waits or measures."""

from __future__ import annotations

import random
from collections import deque

from agentic_isolation.errors import OverloadedError

MOST_CALLS = 10_000
"""Calls that may be under way; of more, those of the tenants that have most are refused."""
MOST_UNSENT = 64 << 20
"""Bytes of answers that may wait to be taken; of more, calls of the tenants that leave most are refused."""
LARGE = 16 << 10
"""Bytes from which on an answer counts."""
_SPARED_TOO = 2
"""Times as much of either, from which on those calls are refused, too, that else never are."""
LAG = 0.03
"""Seconds that the event loop may be late by."""
WAIT = 0.5
"""Seconds that a call may wait to be accepted."""
BUSY = 0.7
"""The share of its time that the event loop may have work to do, while there is a crowd."""
CROWD = 32
"""Fresh calls that may be under way while the loop is busy: more would only make each other wait."""
BURST = 96
"""Fresh calls that may be under way while the loop is busy, though it has not been for long."""
PATIENCE = 0.25
"""Seconds for which any of it may last: a burst is no overload."""
FRESH = 1.0
"""Seconds after which a call that is under way waits for something else than the service."""
SPARED = 8
"""Fresh calls that each tenant may always have."""
_RELIEF = 2.0
"""Seconds without pressure after which nothing is refused any more."""
_LESS, _MORE, _MORE_FRESH = 0.7, 1.02, 0.1
"""How the bound moves with each look: down by a factor under pressure, else up by a factor and a bit."""
_RETURNS = 200.0
"""Refused calls that should come back in a second at most."""
_SHORTEST_RETRY, _LONGEST_RETRY = 0.5, 5.0
"""Seconds."""


class Work:
    """One call that is under way."""

    __slots__ = ("began", "fresh", "tenant", "unsent")

    def __init__(self, tenant: str, began: float) -> None:
        self.tenant = tenant
        self.began = began
        self.fresh = True
        self.unsent = 0
        """Bytes of its answer."""


class Load:
    """The calls under way, and how many fresh ones a tenant may have. Times are seconds of any clock.

    Under pressure that lasts there is a bound: as many for each tenant as make a crowd together. It falls until there
    is no pressure. Then it rises slowly, and is lifted. So those are refused that have most, and whoever has few calls
    gets through.

    A call is under way until its answer has gone out: what nobody takes is kept in memory.

    Args:
        most: Calls that may be under way.
        most_unsent: Bytes of answers that may wait.
    """

    def __init__(self, most: int = MOST_CALLS, most_unsent: int = MOST_UNSENT) -> None:
        self.bound: float | None = None
        """Fresh calls that a tenant may have; None: as many as it likes."""
        self.refused = 0
        """Calls that were refused, in all."""
        self._most = most
        self._most_unsent = most_unsent
        # Counters would do, and take a call of Python's for each tenant that comes and goes.
        self._under_way: dict[str, int] = {}
        self._calls = 0
        self._fresh: dict[str, int] = {}
        self._fresh_calls = 0
        self._unsent: dict[str, int] = {}
        self._unsent_bytes = 0
        self._busy = False
        self._begun: deque[Work] = deque()
        self._pressed_since: float | None = None
        self._relieved_since = 0.0
        self._refused_before = 0
        self._refusals = 0.0
        self._looked_at = 0.0

    def __len__(self) -> int:
        return self._calls

    def begin(self, tenant: str, now: float, *, spared: bool = False) -> Work:
        """Counts a call that begins.

        Args:
            tenant: Whose it is.
            now: The time.
            spared: It is never refused, as long as there is not twice as much as there may be of calls or answers.

        Raises:
            OverloadedError: The tenant has as many as it may for now.
        """
        if not spared:
            bound = self.bound
            if bound is None and self._busy and self._fresh_calls >= BURST:
                bound = BURST / len(self._fresh)
            if bound is not None and self._fresh.get(tenant, 0) >= max(bound, SPARED):
                raise self._refusal("the service has more to do than it can")
        times = _SPARED_TOO if spared else 1
        most = self._most * times
        if self._calls >= most and self._under_way.get(tenant, 0) >= most / len(self._under_way):
            raise self._refusal(f"the service has {self._calls} calls under way")
        most = self._most_unsent * times
        if self._unsent_bytes >= most and self._unsent.get(tenant, 0) >= most / len(self._unsent):
            raise self._refusal(f"{self._unsent[tenant]} bytes of answers wait to be taken")
        work = Work(tenant, now)
        self._calls += 1
        self._under_way[tenant] = self._under_way.get(tenant, 0) + 1
        self._fresh[tenant] = self._fresh.get(tenant, 0) + 1
        self._fresh_calls += 1
        self._begun.append(work)
        return work

    def answer(self, work: Work, size: int) -> None:
        """Counts the bytes of the answer of a call, until it ends."""
        if size >= LARGE:
            work.unsent = size
            self._unsent[work.tenant] = self._unsent.get(work.tenant, 0) + size
            self._unsent_bytes += size

    def end(self, work: Work) -> None:
        """Counts a call that has ended, and whose answer has gone out."""
        self._calls -= 1
        _less(self._under_way, work.tenant)
        if work.unsent:
            self._unsent_bytes -= work.unsent
            _less(self._unsent, work.tenant, work.unsent)
        self._age(work)

    def look(self, now: float, *, lag: float = 0.0, wait: float = 0.0, busy: float = 0.0) -> None:
        """Moves the bound by how it goes; to be called many times in a second while there are calls.

        Args:
            now: The time.
            lag: Seconds that the event loop is late by.
            wait: Seconds that calls wait to be accepted.
            busy: The share of the time since the last look in which the event loop had work to do.
        """
        while self._begun and self._begun[0].began <= now - FRESH:
            self._age(self._begun.popleft())
        self._note_refusals(now)
        self._busy = busy > BUSY
        crowded = self._busy and self._fresh_calls > CROWD
        if lag <= LAG and wait <= WAIT and not crowded:
            self._relieve(now)
            return
        self._relieved_since = now
        if self._pressed_since is None:
            self._pressed_since = now
        if self.bound is not None:
            self.bound = max(self.bound * _LESS, SPARED)
        elif now - self._pressed_since >= PATIENCE:
            self.bound = max(CROWD / max(len(self._fresh), 1), SPARED)

    def rest(self) -> None:
        """Takes note that no call is under way: nothing has to be remembered."""
        self.bound = self._pressed_since = None
        self._busy = False
        self._begun.clear()
        self._refusals = 0.0

    def _age(self, work: Work) -> None:
        if work.fresh:
            work.fresh = False
            self._fresh_calls -= 1
            _less(self._fresh, work.tenant)

    def _relieve(self, now: float) -> None:
        self._pressed_since = None
        if self.bound is None:
            return
        self.bound = self.bound * _MORE + _MORE_FRESH
        if now - self._relieved_since >= _RELIEF:
            self.bound = None

    def _note_refusals(self, now: float) -> None:
        """Follows how many are refused in a second."""
        since = now - self._looked_at
        if since > 0:
            rate = (self.refused - self._refused_before) / since
            self._refusals += (rate - self._refusals) * min(since / FRESH, 1.0)
        self._looked_at, self._refused_before = now, self.refused

    def _refusal(self, reason: str) -> OverloadedError:
        self.refused += 1
        longest = min(max(self._refusals / _RETURNS, _SHORTEST_RETRY), _LONGEST_RETRY)
        # At random, so that they do not come back as one.
        delay = random.uniform(longest / 2, longest)
        return OverloadedError(f"{reason}; nothing was done, try again in {delay:.1f} s", retry_after=delay)


def _less(counts: dict[str, int], tenant: str, less: int = 1) -> None:
    if counts[tenant] > less:
        counts[tenant] -= less
    else:
        del counts[tenant]
