"""A span for each call, by OpenTelemetry's instrumentation of grpc.aio servers, sent by OTLP.

As an interceptor the instrumentation would break methods that write their responses, would know of no call that is
cancelled, and would write down what errors say, which may be a path or a command of a workload. So here it is a layer:
what it is put around is the call, seen as a method that yields once and never fails, and how the call has ended it is
told by its context's `set_code`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import grpc.aio

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import IsolationError, UnsupportedError
from agentic_isolation_service.rpc.calls import Call
from agentic_isolation_service.rpc.outcome import code_of, subject_of
from agentic_isolation_service.rpc.server import SERVICE_NAME
from agentic_isolation_service.rpc.trace_context import TraceContext
from agentic_isolation_service.settings.telemetry import TracingSettings

try:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.grpc import aio_server_interceptor
    from opentelemetry.sdk.resources import SERVICE_NAME as NAME_OF_SERVICE
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
except ImportError as error:
    raise UnsupportedError(
        f"[tracing] is configured, and {error.name} is not installed: pip install 'agentic-isolation[otel]'",
        field="tracing",
    ) from error

_log = logging.getLogger(__name__)
_DEFAULT_NAME = "agentic-isolation"
_NAME_VARIABLES = ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES")
_LAST_SPANS = 2.0
"""Seconds for the last spans to be sent."""


@contextlib.asynccontextmanager
async def traced(settings: TracingSettings) -> AsyncIterator[CallTracing]:
    """Sends spans, and yields the layer that makes one for each call. On the way out the last ones are sent."""
    named = settings.service_name
    if named is None and not any(variable in os.environ for variable in _NAME_VARIABLES):
        named = _DEFAULT_NAME
    resource = Resource.create({} if named is None else {NAME_OF_SERVICE: named})
    sampler = None if settings.sample_ratio is None else ParentBasedTraceIdRatio(settings.sample_ratio)
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(settings.endpoint)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield CallTracing(provider)
    finally:
        await finish(_close(provider, exporter))


async def _close(provider: TracerProvider, exporter: OTLPSpanExporter) -> None:
    """Sends the last spans. Where nobody takes them it gives up, for the next service waits for this one's end."""
    closing = asyncio.ensure_future(asyncio.to_thread(provider.shutdown))
    await asyncio.wait([closing], timeout=_LAST_SPANS)
    if not closing.done():
        _log.warning("the last spans could not be sent within %g s", _LAST_SPANS)
        await asyncio.to_thread(exporter.shutdown)
    await closing


class CallTracing:
    """The layer that has the instrumentation make a span for each call, and tells the call's commands which it is."""

    def __init__(self, provider: TracerProvider) -> None:
        self._interceptor = aio_server_interceptor(provider)  # type: ignore[no-untyped-call]
        self._instrumented: dict[str, _Instrumented] = {}

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Makes a span of a call."""
        return self._span(call)

    @contextlib.asynccontextmanager
    async def _span(self, call: Call) -> AsyncIterator[None]:
        instrumented = self._instrumented.get(call.method) or await self._instrument(call.method)
        rest = instrumented(call, _Told(call.context))
        context = await anext(rest)
        span = trace.get_current_span()
        call.trace = _place_of(span)
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            code = code_of(error, answered=call.answered)
            if span.is_recording():
                span.set_attributes(_known(call, code, error))
            context.set_code(grpc.StatusCode[code])
            await anext(rest, None)

    async def _instrument(self, method: str) -> _Instrumented:
        details: Any = _Details(f"{SERVICE_NAME}/{method}")
        handler: Any = await self._interceptor.intercept_service(_uninstrumented, details)
        self._instrumented[method] = handler.unary_stream
        return self._instrumented[method]


class _Details(NamedTuple):
    """What an interceptor is told of a call before it."""

    method: str


class _Told:
    """What the instrumentation is told of a call, in place of its context."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._context = context

    def invocation_metadata(self) -> list[Any]:
        """Returns those metadata of the call that are text."""
        return [entry for entry in self._context.invocation_metadata() or () if isinstance(entry[1], str)]

    def peer(self) -> str:
        """Returns the other end where it has an address and a port."""
        peer = self._context.peer()
        return peer if peer.startswith(("ipv4:", "ipv6:")) else "unix:"

    def set_code(self, code: grpc.StatusCode) -> None:
        """Is called for the span to have the status. The call gets its own further outside."""


_Instrumented = Callable[[Call, _Told], AsyncIterator[Any]]
"""Begins a span before its first item, which is the context to tell its end to, and ends it after that."""


async def _uninstrumented(details: object) -> grpc.RpcMethodHandler[Any, Any]:
    behavior: Any = _rest_of_call
    return grpc.unary_stream_rpc_method_handler(behavior)


async def _rest_of_call(call: Call, context: object) -> AsyncIterator[object]:
    """Stands for a method: what is between its one response and its end is the call."""
    yield context


def _place_of(span: trace.Span) -> TraceContext | None:
    found = span.get_span_context()
    if not found.is_valid:
        return None
    return TraceContext(
        f"{found.trace_id:032x}",
        f"{found.span_id:016x}",
        f"{found.trace_flags:02x}",
        found.trace_state.to_header(),
    )


def _known(call: Call, code: str, error: BaseException | None) -> dict[str, str]:
    """Returns what is known of a call at its end, by words that are the service's own."""
    known = {"code": code, "tenant": call.caller.tenant, **subject_of(call)._asdict()}
    attributes = {f"agentic_isolation.{name}": value for name, value in known.items() if value}
    return attributes | {"error.type": error.reason} if isinstance(error, IsolationError) else attributes
