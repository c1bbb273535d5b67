"""The channel to a service, and its statuses as the errors of the tree."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from agentic_isolation._connection import Connection
from agentic_isolation._retry import DEFAULT_RETRY_TIMEOUT
from agentic_isolation.errors import (
    DeadlineError,
    InvalidArgumentError,
    IsolationError,
    UnavailableError,
    UnsupportedError,
    error_classes,
)
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc

_T = TypeVar("_T")
_OPTIONS: tuple[tuple[str, int], ...] = (
    # Execute answers with up to 16 MiB of each of stdout and stderr.
    ("grpc.max_receive_message_length", (32 << 20) + (1 << 20)),
    # A peer that has silently gone is noticed by pings, so that waiting for a long command needs no deadline. Servers
    # of other makes close connections that ping more often than they are told to accept. The answer to a ping is waited
    # for as the last one says; without it, a minute.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Of each stream so much is under way. What is under way is lost when a stream is cut, and must be less than what
    # the guest keeps for those who resume; probing for more would grow it to many megabytes, and 64 KiB, which is what
    # there is without a word, are fewer than one message of ours with what is around it.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 128 << 10),
    # A service that is back is found as soon as a call is made again, and a path that leads nowhere is given up: the
    # second one also bounds the making of a connection.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_BROKEN_WHILE_SENDING = "Internal error from Core"
"""Details of the status, INTERNAL, that gRPC for Python itself makes where the stream of a request breaks."""
_DETAILS_KEY = "grpc-status-details-bin"
_BY_CODE: dict[grpc.StatusCode, type[IsolationError]] = {
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    # Our own cancellation is asyncio's: a status of it is somebody's on the way, a server's or a proxy's that ends.
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.UNIMPLEMENTED: UnsupportedError,
}


class ChannelConnection(Connection):
    """A connection over a gRPC channel, which is made when it is first needed.

    Args:
        target: `host:port` or `unix:PATH`.
        retry_timeout: Seconds for which a call that may be repeated is, while the service is unavailable; 0: it is not.
    """

    def __init__(self, target: str, *, retry_timeout: float = DEFAULT_RETRY_TIMEOUT) -> None:
        # A refused retry_timeout must not leave a channel.
        super().__init__(target, retry_timeout)
        self._closed = False
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self.stub = pb_grpc.WorkspaceServiceStub(self._channel)

    async def stream(self, method: Callable[..., Any], request: Any) -> AsyncGenerator[Any, None]:
        with self._translated():
            call = method(request)
            ending = _Ending(call)
            try:
                async for response in call:
                    yield response
            except grpc.aio.AioRpcError as error:
                raise ending.of(error) from None
            finally:
                call.cancel()

    async def aclose(self) -> None:
        """Closes the channel and cancels its calls."""
        self._closed = True
        await self._channel.close(None)

    async def _answer(self, method: Callable[..., Any], request: Any, timeout: float | None) -> Any:
        with self._translated():
            return await method(request, timeout=timeout)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise error_of(error, self.target) from error
        except grpc.aio.UsageError as error:
            raise self.closed_error() from error
        except asyncio.CancelledError as error:
            # Closing cancels calls, whose callers nobody has cancelled.
            task = asyncio.current_task()
            if not self._closed or task is None or task.cancelling():
                raise
            raise self.closed_error() from error


class _Ending:
    """How the service has ended a call. gRPC for Python forgets that where a message was being sent just then.

    It makes a status of its own of that, before or after the service's. So both are looked at, first and last.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    def of(self, last: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Returns the status of the call, of which this one was raised."""
        return last if self._first is None or last.details() != _BROKEN_WHILE_SENDING else self._first

    def _note(self, _: object) -> None:
        if self._first is None and (code := _at_once(self._call.code())) is not grpc.StatusCode.OK:
            metadata = _at_once(self._call.trailing_metadata()) or grpc.aio.Metadata()
            self._first = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, _at_once(self._call.details()))


def _at_once(known: Coroutine[Any, Any, _T]) -> _T:
    """Returns the result of a coroutine that has nothing to wait for."""
    try:
        known.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    raise AssertionError("a call that has ended knows how")


def error_of(error: grpc.aio.AioRpcError, target: str) -> IsolationError:
    """Returns the error of the tree that a status stands for: by its ErrorInfo's reason, else by its code."""
    reason, field, description = None, None, None
    metadata: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            reason, field, description = _details(value)
    kind = error_classes().get(reason or "")
    if kind is not None:
        return kind(description or error.details() or "", field=field)
    if error.details() == _BROKEN_WHILE_SENDING:
        return UnavailableError(f"the call to {target} broke while the request was sent")
    kind = _BY_CODE.get(error.code(), IsolationError)
    return kind(f"{target} answered {error.code().name}: {error.details()}")


def _details(serialized: bytes) -> tuple[str | None, str | None, str | None]:
    """Returns reason, field and the field's description from a google.rpc.Status."""
    reason = field = description = None
    with contextlib.suppress(DecodeError):
        for detail in Status.FromString(serialized).details:
            info, bad = ErrorInfo(), BadRequest()
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(bad) and bad.field_violations:
                field, description = bad.field_violations[0].field, bad.field_violations[0].description
    return reason, field, description
