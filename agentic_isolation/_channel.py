"""The channel to a service, and its statuses as the errors of the tree."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from agentic_isolation import _convert as convert
from agentic_isolation._connection import Connection
from agentic_isolation._retry import DEFAULT_RETRY_TIMEOUT
from agentic_isolation._routing import REPLICA_KEY, Routing
from agentic_isolation._security import Channels, Methods, Token
from agentic_isolation._tracing import trace_metadata
from agentic_isolation._wire import check_text, check_type
from agentic_isolation.credentials import Credentials
from agentic_isolation.errors import (
    DeadlineError,
    InvalidArgumentError,
    IsolationError,
    NotAllowedError,
    OverloadedError,
    QuotaError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
    WrongReplicaError,
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
    # there is without a word, are half a message of bulk output.
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
_STREAM_RESET = "RST_STREAM with error code"
"""In the details of the status, INTERNAL, that gRPC makes of a stream which was reset without a word: a proxy does that
whose own connection breaks once it has begun to pass an answer on."""
_TOO_MANY_PENDING = "Too many pending requests for this server"
"""Details of the status, RESOURCE_EXHAUSTED, by which gRPC's core refuses a call before any service sees it."""
_TOO_LARGE = "SERVER: Received message larger than max"
"""In the details of the status, RESOURCE_EXHAUSTED, by which the gRPC of a service refuses a message unread."""
_DETAILS_KEY = "grpc-status-details-bin"
_BY_CODE: dict[grpc.StatusCode, type[IsolationError]] = {
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    # Our own cancellation is asyncio's: a status of it is somebody's on the way, a server's or a proxy's that ends.
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.UNIMPLEMENTED: UnsupportedError,
    # Without a reason of ours they are a proxy's.
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowedError,
}


class ChannelConnection(Connection):
    """A connection over a gRPC channel, which is made when it is first needed.

    Args:
        target: `host:port` or `unix:PATH`.
        credentials: For the service; None: those of the environment.
        retry_timeout: Seconds for which a call that may be repeated is, while the service is unavailable; 0: it is not.
        replica: Behind a proxy, the one that takes calls which are about no workspace; None: any.

    Raises:
        InvalidArgumentError: The target is no text, the retry_timeout makes no sense, or a token would leave this
            machine in plaintext.
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: Credentials | None = None,
        retry_timeout: float = DEFAULT_RETRY_TIMEOUT,
        replica: str | None = None,
    ) -> None:
        # A refused retry_timeout must not leave a channel.
        super().__init__(check_text(target, "target"), retry_timeout)
        self._closed = False
        if credentials is None:
            credentials = Credentials.from_environment()
        check_type(credentials, "credentials", Credentials)
        self._token = Token(credentials)
        self._routing = Routing("" if replica is None else check_text(replica, "replica"))
        self._channels = Channels(target, credentials, _OPTIONS)
        methods: Any = Methods()
        self.stub = pb_grpc.WorkspaceServiceStub(methods)

    async def stream(self, method: Callable[..., Any], request: Any, *, head: Any = None) -> AsyncGenerator[Any, None]:
        replica = ""
        requests = _requests_of(request)
        while True:
            try:
                with _Translated(self, requests):
                    metadata = await self._metadata(head or request, replica)
                    async with self._channels.lease() as channel:
                        call = method(channel, requests or request, metadata=metadata)
                        ending = _Ending(call)
                        try:
                            async for response in call:
                                yield response
                        except grpc.aio.AioRpcError as error:
                            raise ending.of(error) from None
                        finally:
                            call.cancel()
            except WrongReplicaError as error:
                replica = self._turn_to(error, replica, request, head)
            else:
                return

    async def serves(self, name: str, *, timeout: float) -> bool:
        """Returns whether the service of that name takes calls, by its own word (grpc.health.v1); see `once`."""
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        methods: Any = Methods()
        health: Any = health_pb2_grpc.HealthStub(methods)
        answer = await self.once(health.Check, health_pb2.HealthCheckRequest(service=name), timeout=timeout)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def aclose(self) -> None:
        """Closes the channel and cancels its calls."""
        self._closed = True
        await self._channels.aclose()

    async def _answer(self, method: Callable[..., Any], request: Any, timeout: float | None, head: Any) -> Any:
        replica = ""
        requests = _requests_of(request)
        while True:
            try:
                with _Translated(self, requests):
                    metadata = await self._metadata(head or request, replica)
                    async with self._channels.lease() as channel:
                        return await _ended(method(channel, requests or request, timeout=timeout, metadata=metadata))
            except WrongReplicaError as error:
                replica = self._turn_to(error, replica, request, head)

    async def _metadata(self, head: Any, replica: str) -> tuple[tuple[str, str], ...]:
        token = await self._token.metadata()
        return (*(token or ()), *self._routing.metadata(head, replica), *(trace_metadata() or ()))

    def _turn_to(self, error: WrongReplicaError, tried: str, request: Any, head: Any) -> str:
        """Returns the replica to repeat a call at, which has reached another one.

        Raises:
            WrongReplicaError: It was repeated there already: no proxy on the way minds the metadata.
            UnavailableError: Its requests are spent, and whoever makes it anew will reach the right one.
        """
        if error.replica == tried or not self._routing.learn(head or request, error.replica):
            raise error
        if head is not None:
            raise UnavailableError(f"the workspace is replica {error.replica!r}'s; repeat the call") from error
        return error.replica

    def translated(self, error: BaseException) -> IsolationError | None:
        """Returns the error of the tree that one of gRPC's stands for; None: it is none of gRPC's."""
        if isinstance(error, grpc.aio.AioRpcError):
            return error_of(error, self.target, self._channels.advice(error.details() or ""))
        if isinstance(error, grpc.aio.UsageError):
            return self.closed_error()
        # Closing cancels calls, whose callers nobody has cancelled.
        if self._closed and isinstance(error, asyncio.CancelledError) and not _is_cancelled(error):
            return self.closed_error()
        return None


class _Requests:
    """The requests of one call. gRPC cancels it where one cannot be made, and tells nobody why: that is kept here."""

    def __init__(self, requests: AsyncIterable[Any]) -> None:
        self._requests = requests
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for request in self._requests:
                yield request
        except Exception as error:
            self.failure = error
            raise


def _requests_of(request: Any) -> _Requests | None:
    """Returns the requests of a call; None: it has one."""
    return _Requests(request) if isinstance(request, AsyncIterable) else None


class _Translated:
    """Raises what gRPC raises within as an error of the tree, or what failed in making the call's requests.

    Written out, as it is on the way of every command.
    """

    __slots__ = ("_connection", "_requests")

    def __init__(self, connection: ChannelConnection, requests: _Requests | None) -> None:
        self._connection = connection
        self._requests = requests

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._requests is not None and self._requests.failure is not None and not _is_cancelled(error):
            failure, self._requests.failure = self._requests.failure, None
            try:
                raise failure
            finally:
                del failure, error, traceback  # as below
        if error is not None and (translated := self._connection.translated(error)) is not None:
            try:
                raise translated from error
            finally:
                # An error whose traceback leads to itself would hold the call, and so its connection, for as long.
                del translated, error, traceback


async def _ended(call: Any) -> Any:
    """Returns a call's answer. Cancelled, it says what the cancellation has said, which gRPC for Python forgets.

    Written out, as it is on the way of every command: a task around the call, to be shielded, costs a tenth of it.
    """
    has_ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    call.add_done_callback(lambda _: None if has_ended.done() else has_ended.set_result(None))
    try:
        await has_ended
    except asyncio.CancelledError:
        call.cancel()
        raise
    return await call  # at once


def _is_cancelled(error: BaseException | None) -> bool:
    """Returns whether an error is the cancellation of the task that meets it, and not of a call alone."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


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


def error_of(error: grpc.aio.AioRpcError, target: str, advice: str = "") -> IsolationError:
    """Returns the error of the tree that a status stands for: by its ErrorInfo's reason, else by its code."""
    details = _Details()
    metadata: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            details = _details(value)
    kind = error_classes().get(details.reason)
    if kind is not None:
        message = details.description or error.details() or ""
        found = kind(message, field=details.field, retry_after=details.retry_after)
        if isinstance(found, QuotaError) and details.subject:
            found.subject = details.subject
        if isinstance(found, WrongReplicaError):
            found.replica = str(dict(metadata).get(REPLICA_KEY, ""))
        return found
    if error.details() == _BROKEN_WHILE_SENDING:
        return UnavailableError(f"the call to {target} broke while the request was sent")
    if error.code() is grpc.StatusCode.INTERNAL and _STREAM_RESET in (error.details() or ""):
        return UnavailableError(f"the call to {target} broke in the midst of its answer: {error.details()}")
    if error.details() == _TOO_MANY_PENDING:
        return OverloadedError(f"{target} has more to do than it can; try again")
    if _TOO_LARGE in (error.details() or ""):
        return InvalidArgumentError(
            "the request is larger than a message may be, which is 4 MiB; pass the bulk as a file"
        )
    kind = _BY_CODE.get(error.code(), IsolationError)
    return kind(f"{target} answered {error.code().name}: {error.details()}{advice}")


@dataclass(slots=True)
class _Details:
    """What a google.rpc.Status says beside its code and message."""

    reason: str = ""
    field: str | None = None
    description: str = ""
    """Of what is wrong with the field."""
    subject: str = ""
    retry_after: float | None = None


def _details(serialized: bytes) -> _Details:
    found = _Details()
    with contextlib.suppress(DecodeError):
        for detail in Status.FromString(serialized).details:
            info, bad, quota, retry = ErrorInfo(), BadRequest(), QuotaFailure(), RetryInfo()
            if detail.Unpack(info):
                found.reason = info.reason
            elif detail.Unpack(bad) and bad.field_violations:
                violation = bad.field_violations[0]
                found.field, found.description = violation.field, violation.description
            elif detail.Unpack(quota) and quota.violations:
                found.subject = quota.violations[0].subject
            elif detail.Unpack(retry):
                found.retry_after = convert.duration_from_pb(retry.retry_delay)
    return found
