"""Calls, and the layers around the methods that they call: what is asked of every call, whichever method it is for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import grpc.aio

from agentic_isolation_service.core.caller import OPERATOR, Caller

if TYPE_CHECKING:
    from agentic_isolation_service.rpc.trace_context import TraceContext

_LAST = {"Stream": "exited", "Attach": "exited", "ReadFile": "end", "ReadArchive": "end", "PullImage": "image"}
"""Of methods with many responses, the field that only the last one has."""
_NO_CONTEXT: Any = None
"""Of a call that is over."""


@dataclass(slots=True, eq=False)
class Call:
    """One call of a method of our service."""

    method: str
    """The method's name, for example "Execute"."""
    context: grpc.aio.ServicerContext[Any, Any]
    caller: Caller = OPERATOR
    """Whoever calls; known within the layer that finds it out."""
    request: Any = None
    """The request, or the first of them; None: none has come yet."""
    response: Any = None
    """The response, or the last of them; None: none was given yet."""
    first_response: Any = None
    """The first of them."""
    answered: bool = False
    """Whether the last of many responses may leave: whoever has it need not wait for more, and may cancel the call."""
    answer: bytes | None = None
    """The response as it leaves, where there is only one; None: it is not made yet."""
    inspect: Callable[[Any], None] | None = None
    """Is given each request that comes within the layers; what it raises ends the call."""
    pace: Callable[[Any], Awaitable[None]] | None = None
    """Is given each response, and holds it back until it returns."""
    trace: TraceContext | None = None
    """The span that it runs in, known within the layer that traces calls; None: none, or its client's is passed on."""
    over: bool = False
    """Whether it has ended. It knows only who has called, then."""

    async def give(self, response: Any) -> None:
        """Takes note of a response, and returns when it may leave."""
        if self.first_response is None:
            self.first_response = response
        self.response = response
        if self.pace is not None:
            await self.pace(response)
        last = _LAST.get(self.method)
        self.answered = last is not None and response.HasField(last)

    def end(self) -> None:
        """Forgets what it was about: tasks that it has begun may outlive it by far, and remember it."""
        self.over = True
        self.request = self.response = self.first_response = self.answer = None
        self.inspect = self.pace = None
        self.context = _NO_CONTEXT


def at_the_end(act: Callable[[object], object]) -> None:
    """Has `act` called when the call that the current task runs has ended, and its answer has gone out."""
    task = asyncio.current_task()
    if task is None:
        raise AssertionError("a call runs in a task")
    task.add_done_callback(act)


def starts_command(call: Call) -> bool:
    """Returns whether a call asks for a command to be started."""
    return call.method == "Execute" or _target(call) == "start"


def resumes(call: Call) -> bool:
    """Returns whether a call goes on with what was started before."""
    return call.method == "WaitProcess" or _target(call) == "resume"


def _target(call: Call) -> str | None:
    if call.request is None:
        return None
    if call.method == "Stream":
        return call.request.WhichOneof("target")  # type: ignore[no-any-return]
    if call.method == "Attach":
        return call.request.open.WhichOneof("target")  # type: ignore[no-any-return]
    return None


class Layer(Protocol):
    """What surrounds every call of our service."""

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Returns what is entered before the method of a call and left after it.

        What it raises is told as if the method had raised it. It sees what the method raises, and lets that pass.
        """


_current: ContextVar[Call] = ContextVar("call")


def current_caller() -> Caller:
    """Returns who makes the call that this task runs for; OPERATOR where it has come over no network."""
    call = _current.get(None)
    return OPERATOR if call is None else call.caller


def current_call() -> Call | None:
    """Returns the call that this task runs for; None: it has come over no network, or has ended meanwhile."""
    call = _current.get(None)
    return None if call is None or call.over else call


def surrounded(call: Call, layers: Sequence[Layer]) -> AbstractAsyncContextManager[None]:
    """Surrounds a call by layers, the first one outermost. A call has a task of its own, which this is run in."""
    return _Surrounded(call, layers)


class _Surrounded:
    """Around one call. Written out, as it is on the way of every command."""

    __slots__ = ("_call", "_entered", "_layers")

    def __init__(self, call: Call, layers: Sequence[Layer]) -> None:
        self._call = call
        self._layers = layers
        self._entered: list[AbstractAsyncContextManager[None]] = []

    async def __aenter__(self) -> None:
        _current.set(self._call)
        try:
            for layer in self._layers:
                around = layer.around(self._call)
                await around.__aenter__()
                self._entered.append(around)
        except BaseException as error:
            await self._leave(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave(error)

    async def _leave(self, error: BaseException | None) -> None:
        """Leaves the layers, the innermost first. What one raises, those around it see in place of `error`."""
        told = error
        try:
            while self._entered:
                around = self._entered.pop()
                try:
                    if told is None:
                        await around.__aexit__(None, None, None)
                    else:
                        await around.__aexit__(type(told), told, told.__traceback__)
                except BaseException as raised:  # noqa: BLE001  it is raised once all are left
                    told = raised
        finally:
            self._call.end()
        if told is not None and told is not error:
            raise told
