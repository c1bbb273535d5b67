"""The layers that write calls down: what lies between them finds out who calls, and may refuse.

    Results(log) → authentication → policy, quotas, … → Beginnings(results) → the method

The outer one writes how each call has ended, refusals by every other layer included, and lets no answer leave that is
not written down. The inner one writes that a stream begins, or that any other call has been under way for a while:
these were admitted, and may have had effects when the service is killed.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import grpc.aio

from agentic_isolation.errors import IsolationError, UnauthenticatedError
from agentic_isolation_service.audit.facts import facts_of
from agentic_isolation_service.audit.log import AuditLog, Entry
from agentic_isolation_service.audit.strangers import Strangers
from agentic_isolation_service.core.caller import NOBODY
from agentic_isolation_service.rpc.calls import Call
from agentic_isolation_service.rpc.socket_users import described

_LONG = 1.0
"""Seconds after which it is written down that a call is under way."""
_STREAMS = frozenset({"Stream", "Attach", "ReadFile", "ReadArchive", "WatchDirectory", "PullImage"})
"""Methods whose answers leave before they end."""


class Results:
    """Writes down how calls have ended.

    Args:
        log: Where.
        identifies: Whether a layer within finds out who calls; until then nobody does.
    """

    def __init__(self, log: AuditLog, *, identifies: bool) -> None:
        self.log = log
        self.strangers = Strangers(log)
        """The calls that were refused because nothing proves who calls; to be told in the end."""
        self.under_way: dict[Call, _Account] = {}
        """The calls that were let in."""
        self._identifies = identifies

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Returns what writes a call down."""
        if self._identifies:
            call.caller = NOBODY
        return _Account(self, call)


class Beginnings:
    """Writes down that calls have begun: streams at once, others when they have taken a while.

    Args:
        results: The layer that writes down how they end.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self._young: dict[_Account, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Returns what writes a call's beginning down."""
        return _Beginning(self, self._results.under_way[call])

    def expect(self, account: _Account) -> None:
        """Notes the beginning of a call later, unless it is forgotten by then."""
        loop = asyncio.get_running_loop()
        self._young[account] = loop.time()
        if self._timer is None:  # one for all of them: most calls are over long before
            self._timer = loop.call_later(_LONG, self._note)

    def forget(self, account: _Account) -> None:
        """Says that a call has ended."""
        self._young.pop(account, None)

    def _note(self) -> None:
        """Notes the calls that are no longer young, which come first."""
        self._timer = None
        loop = asyncio.get_running_loop()
        for account, since in list(self._young.items()):
            if (left := since + _LONG - loop.time()) > 0:
                self._timer = loop.call_later(left, self._note)
                return
            del self._young[account]
            account.log.note(account.begin())


class _Account:
    """A call, from its beginning to its end."""

    __slots__ = ("_began", "_call", "_peer", "_results", "_started", "log")

    def __init__(self, results: Results, call: Call) -> None:
        self._results = results
        self._call = call
        self._began: Entry | None = None
        self._started = time.monotonic_ns()
        self._peer = described(call.context.peer())  # not known any more where the connection is gone
        self.log = results.log

    @property
    def streams(self) -> bool:
        """Whether its answers leave before it ends."""
        return self._call.method in _STREAMS

    async def __aenter__(self) -> None:
        await self.log.ready()
        self._results.under_way[self._call] = self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del self._results.under_way[self._call]
        if isinstance(error, UnauthenticatedError) and not self._results.strangers.come():
            return
        content = self._content()
        content["code"], reason = _result(self._call, error)
        if reason is not None:
            content["reason"] = reason
        content["duration_us"] = (time.monotonic_ns() - self._started) // 1000
        entry = Entry("call", content, self._began)
        if error is None or isinstance(error, Exception):
            await self.log.write(entry)
        else:
            self.log.note(entry)  # nobody is there to be answered

    def begin(self) -> Entry:
        """Returns the entry of the call's beginning."""
        self._began = Entry("began", self._content())
        return self._began

    def _content(self) -> dict[str, object]:
        call, caller = self._call, self._call.caller
        content: dict[str, object] = {
            "method": call.method,
            "identity": caller.identity or None,
            "tenant": caller.tenant or None,
        }
        if caller.admin:
            content["admin"] = True
        content["peer"] = self._peer
        content |= facts_of(call)
        return content


class _Beginning:
    """What is around a method."""

    __slots__ = ("_account", "_beginnings")

    def __init__(self, beginnings: Beginnings, account: _Account) -> None:
        self._beginnings = beginnings
        self._account = account

    async def __aenter__(self) -> None:
        if self._account.streams:
            await self._account.log.write(self._account.begin())
        else:
            self._beginnings.expect(self._account)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._beginnings.forget(self._account)


def _result(call: Call, error: BaseException | None) -> tuple[str, str | None]:
    """Returns the code that a call is answered with, and the reason."""
    match error:
        case None:
            return "OK", None
        case asyncio.CancelledError() if call.answered:
            return "OK", None
        case IsolationError():
            return error.code, error.reason
        case asyncio.CancelledError() | grpc.aio.InternalError():
            left = call.context.time_remaining()
            return ("CANCELLED" if left is None or left > 0 else "DEADLINE_EXCEEDED"), None
        case _:
            return "INTERNAL", IsolationError.reason
