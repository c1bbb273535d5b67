"""The requests of one call as its method takes them: decoded, noted, and seen by the layers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agentic_isolation_service.rpc.calls import Call
from agentic_isolation_service.rpc.decoding import decoded, known


async def noted(requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
    """Yields the requests of a call, and notes the first of them."""
    async for request in requests:
        if call.request is None:
            call.request = known(request)
        yield _inspected(request, call)


async def together(first: Any, rest: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
    """Yields the requests of a call whose first one was taken; None: there was none."""
    if first is not None:
        yield decoded(first)
        async for request in rest:
            yield _inspected(request, call)


def _inspected(request: Any, call: Call) -> Any:
    """Returns a request, once the layers have seen it."""
    message = decoded(request)
    if call.inspect is not None:
        call.inspect(message)
    return message
