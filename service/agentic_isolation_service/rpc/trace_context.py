"""Which trace a call belongs to, by W3C Trace Context, and how the commands that it starts are told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc.aio

from agentic_isolation._tracing import trace_metadata
from agentic_isolation_service.rpc.calls import Call, current_call

_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<rest>-.{0,256})?"
)
_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MAX_STATE = 512
"""Bytes of a tracestate that is passed on, as the specification asks for at least."""
_MAX_MEMBERS = 32


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace, to be the parent of what follows."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    flags: str
    """Two hexadecimal digits."""
    state: str = ""
    """The tracestate; empty: none."""

    @property
    def environment(self) -> dict[str, str]:
        """What a command is told of it."""
        told = {"TRACEPARENT": f"00-{self.trace_id}-{self.span_id}-{self.flags}"}
        return told | {"TRACESTATE": self.state} if self.state else told


def trace_of(call: Call) -> TraceContext | None:
    """Returns the span that a call runs in where calls are traced, else what its metadata tell; None: nothing valid."""
    if call.trace is not None:
        return call.trace
    # A thread that logs may come after the end of its call, which has no context then.
    context: grpc.aio.ServicerContext[Any, Any] | None = call.context
    return None if context is None else _told_by(context.invocation_metadata() or ())


def trace_environment() -> Mapping[str, str]:
    """Returns what commands are told of the trace of the current call; empty: it belongs to none.

    Where the call has come over no network, it is that of the program's active span.
    """
    call = current_call()
    trace = _told_by(trace_metadata() or ()) if call is None or call.context is None else trace_of(call)
    return {} if trace is None else trace.environment


def _told_by(metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
    parent, states = None, []
    for key, value in metadata:
        if key == "traceparent":
            parent = value
        elif key == "tracestate" and isinstance(value, str):
            states.append(value)
    if not isinstance(parent, str):
        return None
    match = _TRACEPARENT.fullmatch(parent)
    # A later version may add to the end, and what is known of this one has its meaning there, too.
    if match is None or (match["version"] == "00" and match["rest"]):
        return None
    return TraceContext(match["trace"], match["span"], match["flags"], _checked(",".join(states)))


def _checked(state: str) -> str:
    """Returns a tracestate, or nothing where it is malformed: a trace is told without it then."""
    if not state or len(state) > _MAX_STATE:
        return ""
    members = [stripped for member in state.split(",") if (stripped := member.strip(" \t"))]
    if len(members) > _MAX_MEMBERS or not all(_MEMBER.fullmatch(member) for member in members):
        return ""
    return ",".join(members)
