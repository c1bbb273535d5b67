"""The trace that a program's calls belong to: they carry its active span, where it has OpenTelemetry in use."""

from __future__ import annotations

import sys


def trace_metadata() -> tuple[tuple[str, str], ...] | None:
    """Returns the metadata that tell a service of the active span, by W3C Trace Context; None: there is none.

    OpenTelemetry is not loaded for it: where nobody has, no span is active.
    """
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple(carrier.items()) or None
