"""What comes in on an Attach: the message that opens it, and the actions after it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agentic_isolation import _convert_interaction as convert
from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.core.attachment import Action, EndOfInput, Input, Resize, Signal

MAX_INPUT = 64 << 10
"""Bytes of one `stdin` message."""


async def opening_of(requests: AsyncIterator[pb.AttachRequest]) -> pb.AttachOpen:
    """Returns what an attachment is opened with.

    Raises:
        InvalidArgumentError: The first message is another one, or there is none.
    """
    first = await anext(aiter(requests), None)
    if first is None or first.WhichOneof("action") != "open":
        raise InvalidArgumentError("the first message must open the attachment", field="open")
    return first.open


async def actions_of(requests: AsyncIterator[pb.AttachRequest]) -> AsyncIterator[Action]:
    """Yields what the messages after the first one ask for.

    Raises:
        InvalidArgumentError: One of them makes no sense.
    """
    async for request in requests:
        match request.WhichOneof("action"):
            case "stdin":
                if len(request.stdin) > MAX_INPUT:
                    raise InvalidArgumentError(
                        f"{len(request.stdin)} bytes, more than {MAX_INPUT}; send them in pieces", field="stdin"
                    )
                if request.stdin:
                    yield Input(request.stdin)
            case "end_of_input":
                yield EndOfInput()
            case "resize":
                yield Resize(convert.size_from_pb(request.resize))
            case "signal":
                yield Signal(request.signal)
            case "open":
                raise InvalidArgumentError("the attachment is open already", field="open")
            case _:
                raise InvalidArgumentError("name an action", field="action")
