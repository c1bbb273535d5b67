"""Calls in the log: what a record belongs to, and a line for each call."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager

import grpc.aio

from agentic_isolation_service.rpc.calls import Call, current_call
from agentic_isolation_service.rpc.outcome import code_of, subject_of
from agentic_isolation_service.rpc.trace_context import trace_of

_GRPC = "grpc._cython.cygrpc"
"""The logger of what gRPC for Python has in Cython."""
_log = logging.getLogger(__name__)


class CallFields(logging.Filter):
    """Gives each record of a call the call's fields, as far as it has none of its own and they are known by then.

    They are looked up when a record is made: calls that log nothing pay nothing.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns True: it keeps no record back."""
        call = current_call()
        if call is not None:
            for name, value in _fields(call):
                if value and not hasattr(record, name):
                    setattr(record, name, value)
        return True


class CallersThatHaveGone(logging.Filter):
    """Keeps back what gRPC logs, as an error of the method, where a caller has gone while its answer was sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether the record is anything else."""
        error = record.exc_info[1] if record.exc_info else None
        return not (record.name == _GRPC and isinstance(error, grpc.aio.InternalError))


def _fields(call: Call) -> Iterator[tuple[str, str]]:
    yield "method", call.method
    yield "tenant", call.caller.tenant
    yield "identity", call.caller.identity
    yield from subject_of(call)._asdict().items()
    trace = trace_of(call)
    yield "trace_id", "" if trace is None else trace.trace_id


class AccessLog:
    """The layer that writes a line for each call, for debugging."""

    @staticmethod
    def is_wanted() -> bool:
        """Whether anybody would read it."""
        return _log.isEnabledFor(logging.DEBUG)

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Writes a line when a call has ended."""
        return _told(call)


@contextlib.asynccontextmanager
async def _told(call: Call) -> AsyncIterator[None]:
    began = time.perf_counter()
    code = "OK"
    try:
        yield
    except BaseException as error:
        code = code_of(error, answered=call.answered)
        raise
    finally:
        milliseconds = round((time.perf_counter() - began) * 1000, 3)
        _log.debug("call ended", extra={"code": code, "duration_ms": milliseconds})
