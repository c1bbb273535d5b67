"""The first message of calls: until it comes, nobody knows what they are about, nor who calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from agentic_isolation.errors import InvalidArgumentError, OverloadedError
from agentic_isolation_service.rpc.errors import abort

MOST = 1_000
"""Calls that may have sent no message yet. Each takes some 20 KiB for as long as its client likes, whoever that is."""
_RETRY_AFTER = 1.0
"""Seconds."""
MOST_ELSEWHERE = 1_000
"""Calls of many requests that other services than ours may have at a time, for as long as their clients like."""

_UNDECODABLE = "the bytes of the request are no message of this RPC"

_Context = grpc.aio.ServicerContext[Any, Any]


class Openings(grpc.aio.ServerInterceptor):
    """Waits for the request of every call that has only one, of whichever service, and bounds how many are waited for.

    gRPC itself would wait for any number of them, for ever, and never answer a call that ends without a request.

    Args:
        service: Full name of our service, whose calls of many requests are counted by its layers.
    """

    def __init__(self, service: str) -> None:
        self._prefix = f"/{service}/"
        self._elsewhere = 0
        self._waiting: dict[_Opening, None] = {}
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the method's handler, made to wait here where it has one request; else it is to call `first`."""
        method = handler_call_details.method
        if method in self._handlers:
            return self._handlers[method]
        # The stubs do not know that an aio server's handlers are coroutines.
        handler: Any = await continuation(handler_call_details)
        if handler is None or (handler.request_streaming and not self._is_elsewhere(method, handler)):
            return handler  # type: ignore[no-any-return]
        opened: grpc.RpcMethodHandler[Any, Any]
        if handler.request_streaming:
            codecs = {
                "request_deserializer": handler.request_deserializer,
                "response_serializer": handler.response_serializer,
            }
            opened = grpc.stream_stream_rpc_method_handler(self._attending(handler.stream_stream), **codecs)
        elif handler.response_streaming:
            opened = grpc.stream_stream_rpc_method_handler(
                self._streaming(handler), response_serializer=handler.response_serializer
            )
        else:
            opened = grpc.stream_unary_rpc_method_handler(
                self._answering(handler), response_serializer=handler.response_serializer
            )
        self._handlers[method] = opened
        return opened

    def _is_elsewhere(self, method: str, handler: Any) -> bool:
        return handler.response_streaming and not method.startswith(self._prefix)

    async def first(self, context: _Context) -> Any:
        """Returns the first message of a call; grpc.aio.EOF where it ends without one.

        Raises:
            AbortError: More calls have begun since than may wait for theirs; its client was told.
        """
        opening = _Opening(context)
        self._waiting[opening] = None
        if len(self._waiting) > MOST:
            # Not the new one: whoever means to send a message does so at once.
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.refuse()
        try:
            message = await context.read()
        except grpc.aio.UsageError:  # it has ended meanwhile
            if opening.refusal is None:
                raise
            message = grpc.aio.EOF
        finally:
            self._waiting.pop(opening, None)
        if opening.refusal is not None:
            await _told(opening.refusal)
        return message

    def _answering(self, handler: Any) -> Any:
        async def answer(_: object, context: _Context) -> Any:
            return await handler.unary_unary(await self._request(handler, context), context)

        return answer

    def _streaming(self, handler: Any) -> Any:
        async def stream(_: object, context: _Context) -> None:
            await _sent(handler.unary_stream(await self._request(handler, context), context), context)

        return stream

    def _attending(self, method: Callable[[Any, _Context], Any]) -> Any:
        async def attend(requests: Any, context: _Context) -> None:
            if self._elsewhere >= MOST_ELSEWHERE:
                error = OverloadedError(
                    f"{MOST_ELSEWHERE} such calls are open, and there may be no more; end them",
                    retry_after=_RETRY_AFTER,
                )
                await _told(abort(context, error))
            self._elsewhere += 1
            try:
                await _sent(method(requests, context), context)
            except DecodeError:
                await _told(abort(context, InvalidArgumentError(_UNDECODABLE)))
            finally:
                self._elsewhere -= 1

        return attend

    async def _request(self, handler: Any, context: _Context) -> Any:
        data = await self.first(context)
        if data is grpc.aio.EOF:
            await _told(abort(context, InvalidArgumentError("the call has ended without a request")))
        try:
            return handler.request_deserializer(data)
        except DecodeError:
            await _told(abort(context, InvalidArgumentError(_UNDECODABLE)))


class _Opening:
    """A call that has sent no message yet."""

    __slots__ = ("_context", "refusal")

    def __init__(self, context: _Context) -> None:
        self._context = context
        self.refusal: asyncio.Task[NoReturn] | None = None
        """Tells its client that it is not waited for any more; None: it is."""

    def refuse(self) -> None:
        """Ends the call, which is in the midst of reading."""
        error = OverloadedError(
            f"{MOST} calls have begun since without a message; nothing was done, send it with the call",
            retry_after=_RETRY_AFTER,
        )
        self.refusal = asyncio.create_task(abort(self._context, error))
        self.refusal.add_done_callback(lambda task: task.cancelled() or task.exception())


async def _sent(responses: Any, context: _Context) -> None:
    """Sends what a method yields; one that sends by itself is waited for."""
    if not hasattr(responses, "__aiter__"):
        await responses
        return
    async for response in responses:
        await context.write(response)


async def _told(telling: Awaitable[NoReturn]) -> NoReturn:
    """Waits until a client was told how its call ends."""
    try:
        await telling
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None  # it has gone, and gRPC is about to say so
