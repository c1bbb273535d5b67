"""Refuses new calls early while the service has more to do than it can."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from agentic_isolation_service.core.overload import Load, Work
from agentic_isolation_service.rpc.backlog import Backlog
from agentic_isolation_service.rpc.busyness import ThreadTime
from agentic_isolation_service.rpc.calls import Call, at_the_end, resumes

TICK = 0.05
"""Seconds between two looks at how it goes, while calls are under way."""
_HALF_BUSY = 0.5
"""The share of its time that the event loop has work to do before any call can have to wait."""
SPARED = frozenset({"GetServerInfo", "RenewWorkspace", "DestroyWorkspace", "SignalProcess"})
"""Methods that pressure does not refuse: without them work would be lost, or would not end."""


_log = logging.getLogger(__name__)


class OverloadLayer:
    """Refuses calls that would begin something, in whose tenant's name most is under way.

    Args:
        load: Who may begin what.
        backlog: What waits to be accepted.
    """

    def __init__(self, load: Load, backlog: Backlog) -> None:
        self.load = load
        self._backlog = backlog
        self._thread = ThreadTime()
        self._due: asyncio.TimerHandle | None = None
        self._accepted = self._refused = 0

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Counts a call, or refuses it."""
        return _Counted(self, call)

    def begin(self, call: Call) -> Work:
        """Counts a call. Raises OverloadedError where it is refused."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._due is None:
            self._accepted = self._backlog.accepted
            self._thread.since_last()
            self._due = loop.call_at(now + TICK, self._look, loop)
        spared = call.method in SPARED or resumes(call)
        return self.load.begin(call.caller.tenant, now, spared=spared)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._due is None:
            raise AssertionError("a look is due when it is taken")
        now = loop.time()
        lag = now - self._due.when()
        accepted = self._backlog.accepted - self._accepted
        self._accepted += accepted
        refusing = self.load.bound is not None
        seconds = TICK + lag
        busy = self._thread.since_last() / seconds
        wait = self._wait(accepted, seconds) if busy > _HALF_BUSY else 0.0  # asking takes a tenth of a millisecond
        self.load.look(now, lag=lag, wait=wait, busy=busy)
        self._due = loop.call_at(now + TICK, self._look, loop) if len(self.load) else None
        if self._due is None:
            self.load.rest()
        if refusing != (self.load.bound is not None):
            self._tell(refusing)

    def _tell(self, refusing: bool) -> None:
        if refusing:
            _log.info("no overload any more; %d calls were refused", self.load.refused - self._refused)
        else:
            _log.info("overload: more is asked than can be done; new calls are refused, the busiest tenants' first")
        self._refused = self.load.refused

    def _wait(self, accepted: int, seconds: float) -> float:
        """Returns the seconds that a call which arrives now waits to be accepted, at the present rate."""
        return self._backlog.waiting() * seconds / max(accepted, 1)


class _Counted:
    """Around one call, until its answer has gone out with its task. Written out, as each command has one."""

    __slots__ = ("_call", "_layer", "_work")

    def __init__(self, layer: OverloadLayer, call: Call) -> None:
        self._layer = layer
        self._call = call

    async def __aenter__(self) -> None:
        self._work = self._layer.begin(self._call)
        at_the_end(self._end)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        answer = self._call.answer
        if answer is not None:
            self._layer.load.answer(self._work, len(answer))

    def _end(self, _: object) -> None:
        self._layer.load.end(self._work)
