"""The error boundary: what the core raises leaves as google.rpc.Status, whichever RPC it came from."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from agentic_isolation import _convert as convert
from agentic_isolation._routing import REPLICA_KEY
from agentic_isolation.errors import InvalidArgumentError, IsolationError, QuotaError, WrongReplicaError
from agentic_isolation_service.rpc.calls import Call, Layer, at_the_end, surrounded
from agentic_isolation_service.rpc.decoding import decoded, decoder, known
from agentic_isolation_service.rpc.drain import Drain, DrainingError
from agentic_isolation_service.rpc.requests import noted, together

DOMAIN = "agentic-isolation"
_DETAILS_KEY = "grpc-status-details-bin"
_DRAINING_KEY = "agentic-isolation-draining"
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""What gRPC's own retries go by (gRFC A6): milliseconds until the next attempt, or that there is to be none."""
_NEVER = "-1"
_MAX_MESSAGE = 1024
"""Bytes. Clients take 8 KiB of metadata; a message is in there three times, once with each byte escaped as three."""
_MAX_FIELD = 256
"""Bytes."""
_NOTHING = b""
"""The answer for a client that has gone."""
_OPENING_TIMEOUT = 30.0
"""Seconds for the message that says what a call is about, where nobody has found out who calls before it comes."""
_REST_TIMEOUT = 10.0
"""Seconds that the rest of a refused upload is taken for before its client is told."""
_log = logging.getLogger(__name__)

_Context = grpc.aio.ServicerContext[Any, Any]
_Encode = Callable[[Any], bytes]


class ErrorBoundary(grpc.aio.ServerInterceptor):
    """Wraps every handler of our service: IsolationError becomes its status, anything else INTERNAL, logged, not told.

    Health and reflection have their own ways to answer, and stream in another.

    Args:
        service: Full name of our service.
        drain: Counts its calls, and ends them when the server is to end.
        is_resumable: Whether the call of a request can be resumed by its client.
        first: Waits for the first of many messages, as Openings.
        layers: What surrounds each call, the outermost first.
    """

    def __init__(
        self,
        service: str,
        drain: Drain,
        is_resumable: Callable[[Any], bool],
        first: Callable[[_Context], Awaitable[Any]],
        layers: Sequence[Layer] = (),
    ) -> None:
        self._layers = tuple(layers)
        self._prefix = f"/{service}/"
        self._drain = drain
        self._is_resumable = is_resumable
        self._first = first
        self._guarded: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the method's handler, wrapped when it is first asked for."""
        method = handler_call_details.method
        if method in self._guarded:
            return self._guarded[method]
        # The stubs do not know that an aio server's handlers are coroutines.
        handler: Any = await continuation(handler_call_details)
        if handler is None or not method.startswith(self._prefix):
            return handler  # type: ignore[no-any-return]
        self._guarded[method] = self._wrapped(handler, method.removeprefix(self._prefix))
        return self._guarded[method]

    def _wrapped(self, handler: Any, name: str) -> grpc.RpcMethodHandler[Any, Any]:
        decode, encode = decoder(handler.request_deserializer), handler.response_serializer
        if handler.unary_unary is not None:
            guarded = self._guard(handler.unary_unary, encode, name)
            return grpc.unary_unary_rpc_method_handler(guarded, request_deserializer=decode)
        if handler.stream_unary is not None:
            upload = self._guard_upload(handler.stream_unary, encode, name)
            return grpc.stream_unary_rpc_method_handler(upload, request_deserializer=decode)
        codecs = {"request_deserializer": decode, "response_serializer": encode}
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._guard_stream(handler.unary_stream, name), **codecs)
        return grpc.stream_stream_rpc_method_handler(self._guard_exchange(handler.stream_stream, name), **codecs)

    def _guard(
        self, method: Callable[[Any, _Context], Awaitable[Any]], encode: _Encode, name: str
    ) -> Callable[[Any, _Context], Awaitable[bytes]]:
        async def guarded(request: Any, context: _Context) -> bytes:
            async with _Told(context):
                return await self._respond(method, encode, request, Call(name, context, request=known(request)))
            return _NOTHING

        return guarded

    def _guard_upload(
        self, method: Callable[[Any, _Context], Awaitable[Any]], encode: _Encode, name: str
    ) -> Callable[[Any, _Context], Awaitable[bytes]]:
        async def guarded(requests: AsyncIterator[Any], context: _Context) -> bytes:
            call = Call(name, context)
            upload = _Upload(requests)
            async with _Told(context, rest=upload):
                return await self._respond(method, encode, noted(upload, call), call)
            return _NOTHING

        return guarded

    def _guard_exchange(
        self, method: Callable[[Any, _Context], AsyncGenerator[Any, None]], name: str
    ) -> Callable[[Any, _Context], Awaitable[None]]:
        """Guards a method that takes and gives many messages. Its first one tells whether it can be resumed."""

        async def guarded(requests: AsyncIterator[Any], context: _Context) -> None:
            async with _Told(context):
                # A call that has asked for nothing yet loses nothing.
                with self._drain.call(resumable=True):
                    first = await _in_time(self._first(context))
                call = Call(name, context, request=known(first))
                await self._answer(method, together(first, requests, call), call)

        return guarded

    def _guard_stream(
        self, method: Callable[[Any, _Context], AsyncGenerator[Any, None]], name: str
    ) -> Callable[[Any, _Context], Awaitable[None]]:
        async def guarded(request: Any, context: _Context) -> None:
            async with _Told(context):
                await self._answer(method, request, Call(name, context, request=known(request)))

        return guarded

    async def _respond(
        self, method: Callable[[Any, _Context], Awaitable[Any]], encode: _Encode, request: Any, call: Call
    ) -> bytes:
        """Returns the response as it leaves: as a message it would take its memory again until its client takes it."""
        async with surrounded(call, self._layers):
            with self._drain.call(resumable=False):
                response = await method(decoded(request), call.context)
                await call.give(response)
                answer = call.answer = encode(response)
        return answer

    async def _answer(
        self, method: Callable[[Any, _Context], AsyncGenerator[Any, None]], request: Any, call: Call
    ) -> None:
        async with surrounded(call, self._layers):
            with self._drain.call(resumable=self._is_resumable(call.request)) as running:
                async with contextlib.aclosing(method(decoded(request), call.context)) as responses:
                    async for response in responses:
                        await call.give(response)
                        await running.write(call.context.write(response))


class _Told:
    """Tells the client of a call what goes wrong within. Written out, as it is on the way of every command.

    Args:
        context: The call's.
        rest: What its client may still be sending.
    """

    __slots__ = ("_context", "_rest")

    def __init__(self, context: _Context, *, rest: AsyncIterator[Any] | None = None) -> None:
        self._context = context
        self._rest = rest

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        # The boundary: nothing but a status may leave.
        if not isinstance(error, Exception) or isinstance(error, grpc.aio.AbortError):
            return False
        if isinstance(error, grpc.aio.InternalError):
            return True  # The client has gone in the middle of a message, and nobody is left to tell.
        if self._rest is not None:
            await _take_rest(self._rest)
        return await abort(self._context, error)


class _Upload:
    """The requests of an upload, up to the one that says that it is complete: its client sends no more."""

    __slots__ = ("_complete", "_requests")

    def __init__(self, requests: AsyncIterator[Any]) -> None:
        self._requests = aiter(requests)
        self._complete = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._complete:
            raise StopAsyncIteration
        request = await anext(self._requests)
        message = known(request)
        self._complete = message is not None and message.WhichOneof("content") == "end"
        return request


async def _in_time(opening: Awaitable[Any]) -> Any:
    """Returns the first request of a call; None: there is none.

    Raises:
        InvalidArgumentError: It does not come.
    """
    try:
        async with asyncio.timeout(_OPENING_TIMEOUT):
            first = await opening
    except TimeoutError:
        raise InvalidArgumentError(
            f"there was no message within {_OPENING_TIMEOUT:g} s; send the first one with the call"
        ) from None
    return None if first is grpc.aio.EOF else first


async def _take_rest(requests: AsyncIterator[Any]) -> None:
    """Takes what a client still sends: a refusal that crosses a message shows as INTERNAL in gRPC for Python."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REST_TIMEOUT):
            async for _ in requests:
                pass


async def abort(context: _Context, error: Exception) -> NoReturn:
    """Ends a call with the status of an error; one that is none of the tree's is logged, and not told."""
    if not isinstance(error, IsolationError):
        _log.error("a defect of the service", exc_info=error)
        error = IsolationError("a defect of the service; its log has the details")
    status = status_of(error)
    metadata = (*_told_to_proxies(error), (_DETAILS_KEY, status.SerializeToString()))
    code = grpc.StatusCode[error.code]
    try:
        await context.abort(code, status.message, trailing_metadata=metadata)
    except grpc.aio.AbortError as aborted:
        _forget_at_the_end(aborted)
        raise


def _forget_at_the_end(aborted: grpc.aio.AbortError) -> None:
    """Has the error of a call that is refused let go of its frames with the call's end.

    gRPC keeps it with the call, which they hold: refusals, of which overload has thousands in a second, would all wait
    for the garbage collector.
    """

    def forget(_: object) -> None:
        aborted.__traceback__ = aborted.__context__ = None

    at_the_end(forget)


def _told_to_proxies(error: IsolationError) -> tuple[tuple[str, str], ...]:
    """Returns metadata by which a proxy, which does not read google.rpc.Status, knows where or when to try again."""
    if isinstance(error, WrongReplicaError):
        return ((REPLICA_KEY, error.replica),)
    if error.retry_after is not None:
        return ((_PUSHBACK_KEY, str(math.ceil(error.retry_after * 1000))),)
    if isinstance(error, QuotaError):
        return ((_PUSHBACK_KEY, _NEVER),)
    if isinstance(error, DrainingError):
        return ((_DRAINING_KEY, "begun" if error.begun else "refused"),)
    return ()


def status_of(error: IsolationError) -> Status:
    """Returns the google.rpc.Status of an error: ErrorInfo, and what AIP-193 has for what else is known of it."""
    status = Status(code=grpc.StatusCode[error.code].value[0], message=_shortened(str(error), _MAX_MESSAGE))
    named = {"replica": error.replica} if isinstance(error, WrongReplicaError) else {}
    status.details.append(_pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=named)))
    if error.field is not None:
        violation = BadRequest.FieldViolation(
            field=_shortened(error.field, _MAX_FIELD), description=_shortened(error.message, _MAX_MESSAGE)
        )
        status.details.append(_pack(BadRequest(field_violations=[violation])))
    if isinstance(error, QuotaError):
        excess = QuotaFailure.Violation(
            subject=_shortened(error.subject, _MAX_FIELD), description=_shortened(error.message, _MAX_MESSAGE)
        )
        status.details.append(_pack(QuotaFailure(violations=[excess])))
    if error.retry_after is not None:
        status.details.append(_pack(RetryInfo(retry_delay=convert.duration_to_pb(error.retry_after))))
    return status


def _shortened(text: str, limit: int) -> str:
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= limit else data[:limit].decode("utf-8", "ignore") + "…"


def _pack(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
