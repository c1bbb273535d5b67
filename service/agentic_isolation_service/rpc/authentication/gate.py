"""The gate before the services that are not ours, such as reflection: they answer only callers who are known."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import grpc
import grpc.aio

from agentic_isolation.errors import IsolationError, NotAllowedError
from agentic_isolation_service.rpc.authentication.layer import Authentication
from agentic_isolation_service.rpc.errors import abort

_Context = grpc.aio.ServicerContext[Any, Any]


class Gate(grpc.aio.ServerInterceptor):
    """Asks who calls before each method of every service but some.

    Args:
        authentication: Finds out who calls.
        open_services: Full names of the services that it leaves alone: health, and those with layers of their own.
        admin_services: Full names of those that tell of everybody, and so only an admin.
    """

    def __init__(
        self, authentication: Authentication, open_services: Collection[str], admin_services: Collection[str] = ()
    ) -> None:
        self._authentication = authentication
        self._open = frozenset(open_services)
        self._for_admins = frozenset(admin_services)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the method's handler, behind the gate."""
        # The stubs do not know that an aio server's handlers are coroutines.
        handler: Any = await continuation(handler_call_details)
        service = handler_call_details.method.rpartition("/")[0].removeprefix("/")
        if handler is None or service in self._open:
            return handler  # type: ignore[no-any-return]
        for_admins = service in self._for_admins
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._answering(handler.unary_unary, for_admins), **codecs)
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._answering(handler.stream_unary, for_admins), **codecs)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._streaming(handler.unary_stream, for_admins), **codecs)
        return grpc.stream_stream_rpc_method_handler(self._streaming(handler.stream_stream, for_admins), **codecs)

    def _answering(self, method: Callable[[Any, _Context], Awaitable[Any]], for_admins: bool) -> Any:
        async def guarded(request: Any, context: _Context) -> Any:
            await self._admit(context, for_admins)
            return await method(request, context)

        return guarded

    def _streaming(self, method: Callable[[Any, _Context], AsyncIterator[Any]], for_admins: bool) -> Any:
        async def guarded(request: Any, context: _Context) -> AsyncIterator[Any]:
            await self._admit(context, for_admins)
            async for response in method(request, context):
                yield response

        return guarded

    async def _admit(self, context: _Context, for_admins: bool) -> None:
        try:
            caller = await self._authentication.caller_of(context)
            if for_admins and not caller.admin:
                raise NotAllowedError("this tells of what everybody does, and so only admins")
        except IsolationError as error:
            await abort(context, error)
