"""A span of this program, as one that uses OpenTelemetry has it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from opentelemetry.sdk.trace import TracerProvider


@contextlib.contextmanager
def active_span() -> Iterator[str]:
    """A span of this program; yields its traceparent."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("a test")
    with tracer.start_as_current_span("agent") as span:
        context = span.get_span_context()
        yield f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
