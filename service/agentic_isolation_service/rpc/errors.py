"""The error boundary: what the core raises leaves as google.rpc.Status, whichever RPC it came from."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from agentic_isolation.errors import IsolationError
from agentic_isolation_service.rpc.drain import Drain

DOMAIN = "agentic-isolation"
_DETAILS_KEY = "grpc-status-details-bin"
_MAX_MESSAGE = 1024
"""Bytes. Clients take 8 KiB of metadata; a message is in there three times, once with each byte escaped as three."""
_MAX_FIELD = 256
"""Bytes."""
_REST_TIMEOUT = 10.0
"""Seconds that the rest of a refused upload is taken for before its client is told."""
_log = logging.getLogger(__name__)

_Context = grpc.aio.ServicerContext[Any, Any]


class ErrorBoundary(grpc.aio.ServerInterceptor):
    """Wraps every handler of our service: IsolationError becomes its status, anything else INTERNAL, logged, not told.

    Health and reflection have their own ways to answer, and stream in another.

    Args:
        service: Full name of our service.
        drain: Counts its calls, and ends them when the server is to end.
        is_resumable: Whether the call of a request can be resumed by its client.
    """

    def __init__(self, service: str, drain: Drain, is_resumable: Callable[[Any], bool]) -> None:
        self._prefix = f"/{service}/"
        self._drain = drain
        self._is_resumable = is_resumable
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
        self._guarded[method] = self._wrapped(handler)
        return self._guarded[method]

    def _wrapped(self, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._guard(handler.unary_unary), **codecs)
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(
                self._guard(handler.stream_unary, before_refusal=_take_rest), **codecs
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._guard_stream(handler.unary_stream), **codecs)
        return grpc.stream_stream_rpc_method_handler(self._guard_exchange(handler.stream_stream), **codecs)

    def _guard(
        self,
        method: Callable[[Any, _Context], Awaitable[Any]],
        *,
        before_refusal: Callable[[Any], Awaitable[None]] | None = None,
    ) -> Callable[[Any, _Context], Awaitable[Any]]:
        async def guarded(request: Any, context: _Context) -> Any:
            try:
                with self._drain.call(resumable=False):
                    return await method(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  the boundary: nothing but a status may leave
                if before_refusal is not None:
                    await before_refusal(request)
                await _abort(context, error)

        return guarded

    def _guard_exchange(
        self, method: Callable[[Any, _Context], AsyncGenerator[Any, None]]
    ) -> Callable[[Any, _Context], Awaitable[None]]:
        """Guards a method that takes and gives many messages. Its first one tells whether it can be resumed."""

        async def guarded(requests: AsyncIterator[Any], context: _Context) -> None:
            async with _told(context):
                # A call that has asked for nothing yet loses nothing.
                with self._drain.call(resumable=True):
                    first = await anext(aiter(requests), None)
                resumable = self._is_resumable(first)
                await self._answer(method, _together(first, requests), context, resumable=resumable)

        return guarded

    def _guard_stream(
        self, method: Callable[[Any, _Context], AsyncGenerator[Any, None]]
    ) -> Callable[[Any, _Context], Awaitable[None]]:
        async def guarded(request: Any, context: _Context) -> None:
            async with _told(context):
                await self._answer(method, request, context, resumable=self._is_resumable(request))

        return guarded

    async def _answer(
        self,
        method: Callable[[Any, _Context], AsyncGenerator[Any, None]],
        request: Any,
        context: _Context,
        *,
        resumable: bool,
    ) -> None:
        with self._drain.call(resumable=resumable):
            async with contextlib.aclosing(method(request, context)) as responses:
                async for response in responses:
                    await context.write(response)


@contextlib.asynccontextmanager
async def _told(context: _Context) -> AsyncIterator[None]:
    """Tells the client of a call that gives many messages what goes wrong within."""
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except grpc.aio.InternalError:
        return  # The client has gone in the middle of a message, and nobody is left to tell.
    except Exception as error:  # noqa: BLE001  the boundary: nothing but a status may leave
        await _abort(context, error)


async def _together(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yields the requests of a call whose first one was taken; None: there was none."""
    if first is not None:
        yield first
        async for request in rest:
            yield request


async def _take_rest(requests: AsyncIterator[Any]) -> None:
    """Takes what a client still sends: a refusal that crosses a message shows as INTERNAL in gRPC for Python."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REST_TIMEOUT):
            async for _ in requests:
                pass


async def _abort(context: _Context, error: Exception) -> NoReturn:
    if not isinstance(error, IsolationError):
        _log.error("a defect of the service", exc_info=error)
        error = IsolationError("a defect of the service; its log has the details")
    status = status_of(error)
    details = ((_DETAILS_KEY, status.SerializeToString()),)
    code = grpc.StatusCode[error.code]
    await context.abort(code, status.message, trailing_metadata=details)


def status_of(error: IsolationError) -> Status:
    """Returns the google.rpc.Status of an error: ErrorInfo, and BadRequest where a field is at fault (AIP-193)."""
    status = Status(code=grpc.StatusCode[error.code].value[0], message=_shortened(str(error), _MAX_MESSAGE))
    details = [ErrorInfo(reason=error.reason, domain=DOMAIN)]
    status.details.extend(_pack(detail) for detail in details)
    if error.field is not None:
        violation = BadRequest.FieldViolation(
            field=_shortened(error.field, _MAX_FIELD), description=_shortened(error.message, _MAX_MESSAGE)
        )
        status.details.append(_pack(BadRequest(field_violations=[violation])))
    return status


def _shortened(text: str, limit: int) -> str:
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= limit else data[:limit].decode("utf-8", "ignore") + "…"


def _pack(message: ErrorInfo | BadRequest) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
