"""Calls in metrics: how many, how they ended, how long they took."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from types import TracebackType

from prometheus_client import Metric

from agentic_isolation_service.guest.counts import Distribution
from agentic_isolation_service.rpc.calls import Call
from agentic_isolation_service.rpc.outcome import code_of
from agentic_isolation_service.telemetry.families import add, counter, gauge, histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_MAX_TENANTS = 200
_OTHER = "other"
"""What tenants are called beyond so many, whoever names them."""


class CallMetrics:
    """The layer that measures calls. It is to be the outermost, so that it sees what other layers refuse."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()
        self._ended: Counter[tuple[str, str]] = Counter()
        self._of_tenants: Counter[tuple[str, str]] = Counter()
        self._tenants: set[str] = set()
        self._seconds: defaultdict[str, Distribution] = defaultdict(lambda: Distribution(_SECONDS))

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Measures a call."""
        return _Measurement(self, call)

    def begin(self, call: Call) -> None:
        """Counts a call that begins."""
        self._under_way[call.method] += 1

    def end(self, call: Call, code: str, seconds: float) -> None:
        """Counts how a call has ended."""
        method, tenant = call.method, call.caller.tenant
        self._under_way[method] -= 1
        self._ended[method, code] += 1
        self._seconds[method].add(seconds)
        if tenant:
            if tenant not in self._tenants and len(self._tenants) >= _MAX_TENANTS:
                tenant = _OTHER
            self._tenants.add(tenant)
            self._of_tenants[tenant, code] += 1

    def families(self) -> Iterator[Metric]:
        """Yields what was counted."""
        ended = counter("calls", "Calls that have ended.", "method", "code")
        for labels, count in self._ended.items():
            ended.add_metric(labels, count)
        seconds = histogram("call_duration_seconds", "How long calls took, streams to their end.", "method")
        for method, distribution in self._seconds.items():
            add(seconds, [method], distribution)
        under_way = gauge("calls_under_way", "Calls at work.", "method")
        for method, count in self._under_way.items():
            under_way.add_metric([method], count)
        of_tenants = counter("tenant_calls", "Calls of tenants that have ended.", "tenant", "code")
        for labels, count in self._of_tenants.items():
            of_tenants.add_metric(labels, count)
        yield from (ended, seconds, under_way, of_tenants)


class _Measurement(AbstractAsyncContextManager[None]):
    """The measuring of one call. No generator: this is on the way of every call."""

    __slots__ = ("_began", "_call", "_metrics")

    def __init__(self, metrics: CallMetrics, call: Call) -> None:
        self._metrics = metrics
        self._call = call
        self._began = 0.0

    async def __aenter__(self) -> None:
        self._metrics.begin(self._call)
        self._began = perf_counter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        code = code_of(error, answered=self._call.answered)
        self._metrics.end(self._call, code, perf_counter() - self._began)
