"""The channel to a service, and its statuses as the errors of the tree."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from agentic_isolation._retry import DEFAULT_RETRY_TIMEOUT, Patience, check_retry_timeout, persevere
from agentic_isolation.errors import (
    ClosedError,
    DeadlineError,
    InvalidArgumentError,
    IsolationError,
    UnavailableError,
    UnsupportedError,
    error_classes,
)
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc

CALL_TIMEOUT = 60.0
"""Seconds that a call may take which waits for no command."""
ATTEMPT_TIMEOUT = 15.0
"""Seconds after which such a call is made again, where it may be: its path may lead nowhere."""

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
    # Without probing for more, 64 KiB of each stream are under way. What is under way is lost when a stream is cut, and
    # must be less than what the guest keeps for those who resume; probing grows it to many megabytes.
    ("grpc.http2.bdp_probe", 0),
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


class Connection:
    """A channel to a service. Its methods raise IsolationError only, never RpcError.

    Args:
        target: `host:port` or `unix:PATH`.
        retry_timeout: Seconds for which a call that may be repeated is, while the service is unavailable; 0: it is not.
    """

    def __init__(self, target: str, *, retry_timeout: float = DEFAULT_RETRY_TIMEOUT) -> None:
        self.target = target
        self.retry_timeout = check_retry_timeout(retry_timeout)
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self.stub: pb_grpc.WorkspaceServiceAsyncStub = pb_grpc.WorkspaceServiceStub(self._channel)

    async def call(
        self,
        method: Callable[..., Any],
        request: Any,
        *,
        timeout: float | None = None,
        done: type[IsolationError] | None = None,
        at_once: tuple[type[UnavailableError], ...] = (),
    ) -> Any:
        """Calls a method that answers once and may be repeated, and repeats it while the service is unavailable.

        Args:
            method: A method of `stub`.
            request: Its request.
            timeout: Seconds to wait for the answer in all; None: CALL_TIMEOUT, or as long as calls are repeated.
            done: What a repeat is told where the attempt before was carried out; None is returned then.
            at_once: Kinds of UnavailableError after which it is not repeated.

        Raises:
            IsolationError: What the service answered, or that it could not be reached.
        """
        patience = self.patience(max(CALL_TIMEOUT, self.retry_timeout) if timeout is None else timeout)
        attempt_timeout = ATTEMPT_TIMEOUT if self.retry_timeout and timeout is None else None
        try:
            return await persevere(
                lambda: self.attempt(method, request, patience, attempt_timeout), patience, at_once=at_once
            )
        except IsolationError as error:
            if done is not None and isinstance(error, done) and patience.tried:
                return None
            raise

    def patience(self, timeout: float | None = None) -> Patience:
        """Returns the patience of one call, which may take so many seconds in all."""
        return Patience(self.retry_timeout, timeout)

    async def attempt(
        self, method: Callable[..., Any], request: Any, patience: Patience, timeout: float | None = None
    ) -> Any:
        """Calls a method that answers once, once.

        Args:
            method: A method of `stub`.
            request: Its request, or an iterator of them.
            patience: Bounds the wait for the answer.
            timeout: Seconds after which the service counts as unavailable; None: it never does for its silence.

        Raises:
            IsolationError: What the service answered, or that it could not be reached.
        """
        remaining = patience.remaining
        bound = timeout if remaining is None else remaining if timeout is None else min(timeout, remaining)
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            with self._translated():
                return await method(request, timeout=bound)
        except DeadlineError as error:
            # The service itself may say so too, and then it has answered.
            if timeout is not None and bound == timeout and clock() - began > 0.9 * timeout:
                raise UnavailableError(f"{self.target} has not answered for {timeout:g} s") from error
            raise

    async def once(self, method: Callable[..., Any], request: Any, *, timeout: float = CALL_TIMEOUT) -> Any:
        """Calls a method that answers once and must not be repeated; otherwise as `call`."""
        return await self.attempt(method, request, Patience(0, timeout))

    async def stream(self, method: Callable[..., Any], request: Any) -> AsyncGenerator[Any, None]:
        """Yields the responses of a method that answers with many, once. Closed, it cancels the call.

        Raises:
            IsolationError: How the call ended instead.
        """
        with self._translated():
            call = method(request)
            try:
                async for response in call:
                    yield response
            finally:
                call.cancel()

    async def aclose(self) -> None:
        """Closes the channel and cancels its calls."""
        await self._channel.close(None)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise error_of(error, self.target) from error
        except grpc.aio.UsageError as error:
            raise ClosedError(f"the connection to {self.target} is closed") from error


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
