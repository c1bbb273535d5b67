"""Going on where something is away for a while: which calls are made again, how often, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agentic_isolation._cleanup import finish
from agentic_isolation._wire import is_finite
from agentic_isolation.errors import (
    DeadlineError,
    InvalidArgumentError,
    IsolationError,
    OverloadedError,
    QuotaError,
    UnavailableError,
)

_T = TypeVar("_T")

DEFAULT_RETRY_TIMEOUT = 60.0
"""Seconds."""
KILL_TIMEOUT = 10.0
"""Seconds that the end of a command which nobody waits for any more is waited for; its linger ends it otherwise."""
PASSING = (UnavailableError, QuotaError)
"""What may pass: a call that may be repeated is, after these."""
NOTHING_DONE = (OverloadedError, QuotaError)
"""Those that say that nothing of a call was carried out: any call may be repeated after these."""
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 2.0
_SPREAD = 0.5
"""At most so much longer than the service says is waited, at random: those it refuses do not all come back at once."""
_LONGEST_LINGER = 86_400.0
"""Seconds, as the contract says."""


def check_retry_timeout(seconds: float) -> float:
    """Returns `seconds`.

    Raises:
        InvalidArgumentError: It is negative, infinite or no number.
    """
    if not is_finite(seconds, "retry_timeout") or seconds < 0:
        raise InvalidArgumentError(f"{seconds} s is no time to try for; 0 is for not at all", field="retry_timeout")
    return seconds


def linger_of(retry_timeout: float) -> float:
    """Returns the seconds that a command outlives the connection of a client which tries for so long."""
    return min(retry_timeout, _LONGEST_LINGER)


class Patience:
    """How long one call bears with what is PASSING. Between attempts it waits, longer each time and at random.

    Where the service says how long to wait (`retry_after`), it waits so long at least; where that is longer than it has
    patience, or a quota is exceeded and the service does not say, it gives up at once.

    Args:
        seconds: How long they may follow each other without anything else between; 0: none is borne with.
        timeout: Seconds that the call may take in all; None: no bound.
    """

    def __init__(self, seconds: float, timeout: float | None = None) -> None:
        self._seconds = seconds
        self._deadline = None if timeout is None else _now() + timeout
        self._failures = 0
        self._since = 0.0

    @property
    def tried(self) -> bool:
        """Whether an attempt has failed since anything was heard."""
        return self._failures > 0

    @property
    def remaining(self) -> float | None:
        """Seconds left of the call's bound; None: it has none."""
        return None if self._deadline is None else max(0.0, self._deadline - _now())

    def renew(self) -> None:
        """Takes note of a sign of life: what comes later is another outage."""
        self._failures = 0

    async def wait(self, error: UnavailableError | QuotaError) -> None:
        """Waits before another attempt.

        Raises:
            UnavailableError, QuotaError: `error`, with what was tried, where patience or the call's time would be over
                by then.
        """
        now = _now()
        if not self._failures:
            self._since = now
        self._failures += 1
        # Full jitter: those who lost one service at one moment do not all come back at one.
        longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(self._failures, 16))
        delay = random.uniform(0, longest)
        end = self._since + self._seconds
        least = error.retry_after or 0.0
        hopeless = isinstance(error, QuotaError) and error.retry_after is None
        delay = max(delay, least * random.uniform(1, 1 + _SPREAD))
        if hopeless or now + least >= end or (self._deadline is not None and now + delay >= self._deadline):
            try:
                if self._failures == 1:
                    raise error
                raise self._given_up(error, now - self._since) from error
            finally:
                del error  # its traceback leads here
        await asyncio.sleep(min(delay, end - now))

    def _given_up(self, error: UnavailableError | QuotaError, seconds: float) -> UnavailableError | QuotaError:
        told = copy.copy(error)
        told.message = f"{error.message} (tried {self._failures} times in {seconds:.1f} s)"
        told.args = (told.message,)
        return told


async def persevere(
    attempt: Callable[[], Awaitable[_T]], patience: Patience, *, at_once: tuple[type[UnavailableError], ...] = ()
) -> _T:
    """Makes an attempt again and again while it is told what is PASSING.

    Args:
        attempt: It may be carried out more than once.
        patience: How long.
        at_once: Kinds of it that are raised as they are.

    Raises:
        UnavailableError, QuotaError: Patience was over; the error says what was tried.
        IsolationError: Any other is raised as it is.
    """
    while True:
        try:
            return await attempt()
        except PASSING as error:
            if isinstance(error, at_once):
                raise
            await patience.wait(error)


async def run_once(
    attempt: Callable[[], Awaitable[_T]], patience: Patience, kill: Callable[[], Awaitable[object]] | None
) -> _T:
    """Runs a command whose attempts join each other. Cancelled, or waited for in vain, it is killed.

    Args:
        attempt: Runs the command, or joins it.
        patience: How long unavailability is borne with.
        kill: Kills the command, or forbids it to start; None: leaving an attempt does.
    """
    try:
        return await persevere(attempt, patience)
    except (asyncio.CancelledError, DeadlineError):
        if kill is not None:
            await finish(give_up(kill))
        raise


async def give_up(kill: Callable[[], Awaitable[object]]) -> None:
    """Kills a command, as far as that can be had within KILL_TIMEOUT: its linger ends what cannot be reached."""
    with contextlib.suppress(IsolationError, TimeoutError):
        async with asyncio.timeout(KILL_TIMEOUT):
            await kill()


def _now() -> float:
    return asyncio.get_running_loop().time()
