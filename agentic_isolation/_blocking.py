"""Synchronous counterparts of asynchronous objects, each method made of the one whose name, types and words it has."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

from agentic_isolation._loop_thread import Call, LoopThread, shared_loop

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")
_F = TypeVar("_F")
_Item_co = TypeVar("_Item_co", covariant=True)


class Facade(Generic[_T]):
    """An asynchronous object whose methods are waited for.

    Args:
        wrapped: The object.
        loop: Where it lives.
        owner: Is closed when nobody has it any more, which must not be before this.
    """

    def __init__(self, wrapped: _T, loop: LoopThread, owner: object = None) -> None:
        self._wrapped = wrapped
        self._loop = loop
        self._owner = owner


Made = Callable[[_T, LoopThread, object], _F]
"""Makes a facade: takes what Facade takes."""


def blocking(method: Callable[Concatenate[Any, _P], Awaitable[_R]]) -> Callable[Concatenate[Any, _P], _R]:
    """Returns the method of a Facade that runs the asynchronous `method` of what it wraps, and waits for its result."""

    @functools.wraps(method)
    def wait(self: Facade[Any], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return self._loop.run(_awaited(method, self._wrapped, *args, **kwargs))

    return wait


def opening(
    method: Callable[Concatenate[Any, _P], Awaitable[_T]], facade: Made[_T, _F]
) -> Callable[Concatenate[Any, _P], _F]:
    """Returns such a method whose result gets a facade of its own."""

    @functools.wraps(method)
    def wait(self: Facade[Any], /, *args: _P.args, **kwargs: _P.kwargs) -> _F:
        return facade(self._loop.run(_awaited(method, self._wrapped, *args, **kwargs)), self._loop, self)

    return wait


def making(method: Callable[Concatenate[Any, _P], _T], facade: Made[_T, _F]) -> Callable[Concatenate[Any, _P], _F]:
    """Returns such a method of one that does not wait itself, and whose result gets a facade of its own."""

    @functools.wraps(method)
    def make(self: Facade[Any], /, *args: _P.args, **kwargs: _P.kwargs) -> _F:
        return facade(self._loop.run(_called(method, self._wrapped, *args, **kwargs)), self._loop, self)

    return make


def standalone(function: Callable[_P, Awaitable[_R]]) -> Callable[_P, _R]:
    """Returns a function that runs the asynchronous `function`, which leaves nothing open, and waits for its result."""

    @functools.wraps(function)
    def wait(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with shared_loop.use() as loop:
            return loop.run(_awaited(function, *args, **kwargs))

    return wait


class Items(Protocol[_Item_co]):
    """An asynchronous iterator that is closed when it is left."""

    async def __anext__(self) -> _Item_co: ...

    async def aclose(self) -> None:
        """Closes it. May be called twice."""


class Steps(Facade[Items[_T]]):
    """An asynchronous iterator, step by step. Left early, it is closed: by `close` or `with` at a definite moment."""

    def __init__(self, wrapped: Items[_T], loop: LoopThread, owner: object = None) -> None:
        super().__init__(wrapped, loop, owner)
        self._leaving = weakref.finalize(self, _leave, wrapped, loop)
        self._leaving.atexit = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        try:
            return self._loop.run(_awaited(self._wrapped.__anext__))
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends it, and what it stands for. May be called twice."""
        if self._leaving.detach() is not None:
            self._loop.run(self._wrapped.aclose())


def _leave(items: Items[Any], loop: LoopThread) -> None:
    loop.submit(Call(items.aclose()))


async def _awaited(function: Callable[_P, Awaitable[_R]], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Calls a function where its event loop runs."""
    return await function(*args, **kwargs)


async def _called(function: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Calls a function that makes what belongs to an event loop."""
    return function(*args, **kwargs)
