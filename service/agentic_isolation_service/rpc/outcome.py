"""How a call has ended, and what it was about, as logs, metrics and traces tell it."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import grpc.aio

from agentic_isolation.errors import InvalidArgumentError, IsolationError
from agentic_isolation_service.core.processes import process_id_of
from agentic_isolation_service.rpc.calls import Call

_OF_PROCESSES = ("Execute", "Stream", "Attach", "SignalProcess")
"""Methods whose request_id is that of a process."""
_LONGEST_ID = 64
"""Characters. A client may name what no workspace is called."""


def code_of(error: BaseException | None, *, answered: bool = False) -> str:
    """Returns the name of the gRPC status that a call ends with.

    Args:
        error: What it has raised; None: nothing.
        answered: Whether the last of many responses was on its way. Clients need not wait for the status behind it.
    """
    if error is None or (answered and isinstance(error, asyncio.CancelledError)):
        return "OK"
    if isinstance(error, IsolationError):
        return error.code
    # The second one: the client has gone in the middle of a message.
    if isinstance(error, asyncio.CancelledError | grpc.aio.InternalError):
        return "CANCELLED"
    return "INTERNAL"


class Subject(NamedTuple):
    """What a call is about. Each is empty where it is about none, or where that is not known yet."""

    workspace_id: str
    process_id: str


def subject_of(call: Call) -> Subject:
    """Returns what a call is about, as far as its request and its first response tell; they may tell anything."""
    request = call.request
    for opening in ("open", "header"):  # of Attach, and of uploads
        request = getattr(request, opening, request)
    response = call.first_response
    workspace_id = _text(request, "workspace_id") or _text(getattr(response, "workspace", None), "workspace_id")
    process_id = (
        _text(request, "process_id")
        or _text(getattr(request, "resume", None), "process_id")
        or _text(response, "process_id")
        or _text(getattr(response, "started", None), "process_id")
        or _started_by(call.method, request)
    )
    return Subject(workspace_id[:_LONGEST_ID], process_id[:_LONGEST_ID])


def _started_by(method: str, request: object) -> str:
    """Returns the id of the process that a request starts or names by its own id; empty: none, or nobody knows yet."""
    request_id = _text(request, "request_id") if method in _OF_PROCESSES else ""
    try:
        return process_id_of(request_id) if request_id else ""
    except InvalidArgumentError:
        return ""


def _text(message: object, field: str) -> str:
    return getattr(message, field, None) or ""
