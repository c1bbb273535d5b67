"""Asynchronous contexts that are entered within others, and left by them alone."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, ParamSpec, TypeVar, cast

_P = ParamSpec("_P")
_T = TypeVar("_T")


def nested(function: Callable[_P, AsyncIterator[_T]]) -> Callable[_P, AbstractAsyncContextManager[_T]]:
    """Makes a context, as contextlib.asynccontextmanager, that others are around.

    At the end of a program asyncio closes all asynchronous generators that are left, and all at the same time: one that
    stands within another one is then in its way. Those of this function it does not know. The outermost one, which it
    knows, leaves them in their order.
    """

    @contextlib.asynccontextmanager
    @functools.wraps(function)
    def hidden(*args: _P.args, **options: _P.kwargs) -> AsyncIterator[_T]:
        return _Hidden(cast("AsyncGenerator[_T, None]", function(*args, **options)))

    return hidden


class _Hidden(AsyncIterator[_T]):
    """An asynchronous generator that its event loop does not know."""

    def __init__(self, generator: AsyncGenerator[_T, None]) -> None:
        self._generator = generator
        self.athrow = generator.athrow
        self.aclose = generator.aclose

    def __anext__(self) -> Any:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=None)
        try:
            return self._generator.__anext__()
        finally:
            sys.set_asyncgen_hooks(*hooks)
