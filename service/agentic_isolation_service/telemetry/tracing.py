"""A span for each call, by OpenTelemetry, sent by OTLP.

The official instrumentation of grpc.aio servers does not fit: around the error boundary it breaks methods that write
their responses, within it its spans know no status, and it writes down what exceptions say, which may be a path or a
command of a workload. So the spans are made here, with the attributes that it gives them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import grpc

from agentic_isolation._cleanup import finish
from agentic_isolation._version import __version__
from agentic_isolation.errors import IsolationError, UnsupportedError
from agentic_isolation_service.rpc.calls import Call
from agentic_isolation_service.rpc.outcome import code_of, subject_of
from agentic_isolation_service.rpc.server import SERVICE_NAME
from agentic_isolation_service.rpc.trace_context import TraceContext
from agentic_isolation_service.settings.telemetry import TracingSettings

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME as NAME_OF_SERVICE
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
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
_FAULTS = frozenset("UNKNOWN DEADLINE_EXCEEDED UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS".split())
"""Statuses that are the service's fault, as OpenTelemetry's conventions have it."""


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
        yield CallTracing(provider.get_tracer(_DEFAULT_NAME, __version__))
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
    """The layer that makes a span for each call, and tells the commands of the call which it is."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Makes a span of a call."""
        return self._span(call)

    @contextlib.asynccontextmanager
    async def _span(self, call: Call) -> AsyncIterator[None]:
        metadata = {key: value for key, value in call.context.invocation_metadata() or () if isinstance(value, str)}
        parent = self._propagator.extract(metadata, contexts.Context())
        attributes = {"rpc.system": "grpc", "rpc.service": SERVICE_NAME, "rpc.method": call.method}
        span = self._tracer.start_span(
            f"{SERVICE_NAME}/{call.method}", parent, kind=trace.SpanKind.SERVER, attributes=attributes
        )
        found = span.get_span_context()
        if found.is_valid:
            call.trace = TraceContext(
                f"{found.trace_id:032x}",
                f"{found.span_id:016x}",
                f"{found.trace_flags:02x}",
                found.trace_state.to_header(),
            )
        token = contexts.attach(trace.set_span_in_context(span))
        try:
            yield
        except BaseException as error:
            _end(span, call, error)
            raise
        else:
            _end(span, call, None)
        finally:
            contexts.detach(token)


def _end(span: trace.Span, call: Call, error: BaseException | None) -> None:
    """Writes down how a call has ended, by words that are the service's own, and ends its span."""
    if span.is_recording():
        code = code_of(error, answered=call.answered)
        known = {"code": code, "tenant": call.caller.tenant, **subject_of(call)._asdict()}
        attributes = {f"agentic_isolation.{name}": value for name, value in known.items() if value}
        if isinstance(error, IsolationError):
            attributes["error.type"] = error.reason
        span.set_attributes({"rpc.grpc.status_code": grpc.StatusCode[code].value[0], **attributes})
        if code in _FAULTS:
            span.set_status(trace.StatusCode.ERROR)
    span.end()
