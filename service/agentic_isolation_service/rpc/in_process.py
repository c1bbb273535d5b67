"""The service without a network: a connection that calls its methods in this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, cast

from agentic_isolation._cleanup import finish
from agentic_isolation._connection import Connection
from agentic_isolation._loops import same_loop
from agentic_isolation.errors import DeadlineError, IsolationError
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.rpc.calls import Call, Layer, surrounded
from agentic_isolation_service.rpc.requests import noted, together
from agentic_isolation_service.rpc.servicer import WorkspaceServicer

_log = logging.getLogger(__name__)
_NO_CONTEXT: Any = None
"""Of a call that has come over no network. The servicer's methods use none, nor do the layers that may be here."""


class InProcessConnection(Connection):
    """A connection to the service of `workspaces`. The core's errors come through it as they are.

    Args:
        workspaces: Open, until this is closed.
        layers: What surrounds each call, the outermost first.
        retry_timeout: Seconds for which a call that may be repeated is, while something is unavailable; 0: it is not.
    """

    def __init__(self, workspaces: Workspaces, layers: Sequence[Layer], retry_timeout: float) -> None:
        super().__init__("this process", retry_timeout)
        self._layers = layers
        # The stub's methods take the same requests and give the same responses; what comes between is written here.
        self.stub = cast("pb_grpc.WorkspaceServiceAsyncStub", WorkspaceServicer(workspaces))
        self._loop = same_loop(None)
        self._streams: set[asyncio.Task[None]] = set()
        self._callers: set[asyncio.Task[object]] = set()
        """Who waits for a method that answers once. It is run in the caller's own task."""
        self._answered = asyncio.Event()
        """Whether such a wait has ended since that was last looked at, once this is closed."""
        self._closed = False

    async def stream(  # noqa: D102
        self, method: Callable[..., Any], request: Any, *, head: Any = None
    ) -> AsyncGenerator[Any, None]:
        self._refuse_when_closed()
        given: asyncio.Queue[Any] = asyncio.Queue()
        room = asyncio.Semaphore()

        async def run() -> None:
            async with _left_at_the_end(request), contextlib.aclosing(self._responses(method, request)) as responses:
                async for response in responses:
                    await room.acquire()
                    given.put_nowait(response)

        # As in a server, one task runs the method from its start to its end, whoever takes the responses.
        task = asyncio.create_task(run())
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)
        task.add_done_callback(given.put_nowait)
        response: Any = None
        try:
            while (response := await given.get()) is not task:
                room.release()
                yield response
            if task.cancelled():
                self._refuse_when_closed()
            task.result()
        finally:
            # It is awaited by aclose: a generator that awaits here would be in the way of those around it when
            # asyncio closes all that are left.
            if not task.done():
                task.add_done_callback(_take_note)
            task.cancel()
            del task, response  # the traceback of the task's error leads here

    async def aclose(self) -> None:
        """Cancels what is under way, and returns when it has ended. What is called later raises ClosedError."""
        under_way = [*self._streams] if self._closed else [*self._streams, *self._callers]
        self._closed = True
        for task in under_way:
            task.cancel()
        if self._streams or self._callers:
            await finish(self._ended())

    async def _answer(self, method: Callable[..., Any], request: Any, timeout: float | None, head: Any) -> Any:
        self._refuse_when_closed()
        deadline = asyncio.timeout(timeout)
        caller = cast("asyncio.Task[object]", asyncio.current_task())
        before = caller.cancelling()
        self._callers.add(caller)
        try:
            async with deadline, _left_at_the_end(request):
                return await self._response(method, request)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise DeadlineError(f"there was no answer within {timeout:g} s") from error
        except asyncio.CancelledError:
            # As for asyncio.timeout: one cancellation is that of `aclose`, and there may be others.
            if self._closed and caller.cancelling() - 1 <= before:
                raise self.closed_error() from None
            raise
        finally:
            self._callers.discard(caller)
            if self._closed:
                caller.uncancel()
                self._answered.set()

    async def _response(self, method: Callable[..., Any], request: Any) -> Any:
        if not self._layers:
            return await method(request, _NO_CONTEXT)
        call = Call(method.__name__, _NO_CONTEXT)
        if isinstance(request, AsyncGenerator):
            request = noted(request, call)
        else:
            call.request = request
        async with surrounded(call, self._layers):
            response = await method(request, _NO_CONTEXT)
            await call.give(response)
        return response

    def _responses(self, method: Callable[..., Any], request: Any) -> AsyncGenerator[Any, None]:
        responses = self._surrounded(method, request) if self._layers else method(request, _NO_CONTEXT)
        return cast("AsyncGenerator[Any, None]", responses)

    async def _surrounded(self, method: Callable[..., Any], request: Any) -> AsyncGenerator[Any, None]:
        call = Call(method.__name__, _NO_CONTEXT)
        if isinstance(request, AsyncGenerator):
            call.request = await anext(request, None)
            request = together(call.request, request, call)
        else:
            call.request = request
        async with surrounded(call, self._layers), contextlib.aclosing(method(request, _NO_CONTEXT)) as responses:
            async for response in responses:
                await call.give(response)
                yield response

    async def _ended(self) -> None:
        if self._streams:
            await asyncio.wait(set(self._streams))
        while self._callers:
            self._answered.clear()
            await self._answered.wait()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise self.closed_error()
        same_loop(self._loop)


@contextlib.asynccontextmanager
async def _left_at_the_end(request: Any) -> AsyncIterator[None]:
    """Closes what yields a call's requests when the call has ended."""
    try:
        yield
    finally:
        if isinstance(request, AsyncGenerator):
            await request.aclose()


def _take_note(task: asyncio.Task[None]) -> None:
    """Looks at how a call has failed that nobody waits for any more, of which asyncio would complain."""
    error = None if task.cancelled() else task.exception()
    if not isinstance(error, IsolationError | None):
        _log.error("a defect of the service", exc_info=error)
