"""Holds calls to the quotas of their callers' tenants, and of the whole service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from agentic_isolation.errors import QuotaError
from agentic_isolation_service.core.quotas import InUse, Pace, Quotas
from agentic_isolation_service.rpc.calls import Call, starts_command

_STREAMS = frozenset({"Stream", "Attach", "WatchDirectory", "PullImage"})
_COMMAND_RETRY, _STREAM_RETRY = 1.0, 5.0
"""Seconds."""


class QuotaLayer:
    """Holds calls to quotas. What workspaces may be made is held where they are made.

    Args:
        quotas: What tenants, and all of them together, may have.
    """

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self.commands = InUse("commands", retry_after=_COMMAND_RETRY)
        """Those that run."""
        self.streams = InUse("streams", retry_after=_STREAM_RETRY)
        """Those that are open."""
        self._bounds: dict[str, _Bounds] = {}
        self._paces: dict[str, Pace] = {}

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Refuses a call whose tenant, or the service, has as much as it may, and paces its output."""
        bounds = self._bounds_of(call.caller.tenant)
        return _Held(self, bounds, call) if bounds.any else _UNHELD

    def _bounds_of(self, tenant: str) -> _Bounds:
        bounds = self._bounds.get(tenant)
        if bounds is None:
            bounds = self._bounds[tenant] = _Bounds(self._quotas, tenant, self._pace)
        return bounds

    def _pace(self, subject: str, rate: int) -> Pace:
        if subject not in self._paces:
            self._paces[subject] = Pace(rate)
        return self._paces[subject]


class _Bounds:
    """What holds for the calls of one tenant, by subject."""

    __slots__ = ("any", "commands", "messages", "paces", "streams")

    def __init__(self, quotas: Quotas, tenant: str, pace: Callable[[str, int], Pace]) -> None:
        applying = quotas.for_tenant(tenant)
        self.commands = {subject: quota.commands for subject, quota in applying if quota.commands is not None}
        self.streams = {subject: quota.streams for subject, quota in applying if quota.streams is not None}
        self.messages = {
            subject: quota.message_bytes for subject, quota in applying if quota.message_bytes is not None
        }  # fmt: skip
        rates = {subject: quota.output_bytes_per_second for subject, quota in applying}
        self.paces = [pace(subject, rate) for subject, rate in rates.items() if rate is not None]
        self.any = bool(self.commands or self.streams or self.messages or self.paces)


class _Unheld:
    """Around calls that nothing bounds."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


_UNHELD = _Unheld()


class _Held:
    """Around one call. Written out, as it is on the way of every command."""

    __slots__ = ("_bounds", "_call", "_command", "_layer", "_stream")

    def __init__(self, layer: QuotaLayer, bounds: _Bounds, call: Call) -> None:
        self._layer = layer
        self._bounds = bounds
        self._call = call
        self._command = self._stream = False

    async def __aenter__(self) -> None:
        call, bounds = self._call, self._bounds
        if bounds.messages:
            if call.request is not None:
                self._inspect(call.request)
            call.inspect = self._inspect
        if bounds.commands and starts_command(call):
            self._layer.commands.take(bounds.commands)
            self._command = True
        if bounds.streams and call.method in _STREAMS:
            try:
                self._layer.streams.take(bounds.streams)
            except QuotaError:
                self._give_back()
                raise
            self._stream = True
        if bounds.paces:
            call.pace = self._pace

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._give_back()

    def _give_back(self) -> None:
        if self._command:
            self._layer.commands.give_back(self._bounds.commands)
        if self._stream:
            self._layer.streams.give_back(self._bounds.streams)
        self._command = self._stream = False

    def _inspect(self, request: Any) -> None:
        size = request.ByteSize()
        for subject, bound in self._bounds.messages.items():
            if size > bound:
                raise QuotaError(
                    f"the message has {size} bytes, and those of {subject} have {bound} at most; "
                    "send less, or in pieces",
                    subject=subject,
                )

    async def _pace(self, response: Any) -> None:
        now = asyncio.get_running_loop().time()
        size = response.ByteSize()
        wait = max(pace.take(size, now) for pace in self._bounds.paces)
        if wait > 0:
            try:
                await asyncio.sleep(wait)
            except asyncio.CancelledError:
                for pace in self._bounds.paces:
                    pace.give_back(size)
                raise
