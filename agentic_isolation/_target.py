"""Which service to use: the one that is named, the environment's, or one that is embedded in this program."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

from agentic_isolation._channel import ChannelConnection
from agentic_isolation._connection import Connection
from agentic_isolation._embedded import embedded_service
from agentic_isolation._wire import check_text
from agentic_isolation.credentials import Credentials

TARGET_VARIABLE = "AGENTIC_ISOLATION_TARGET"
"""Environment variable with the address of the service to use; unset or empty: an embedded one."""


def target_or_default(target: str | None) -> str:
    """Returns the address that was named, else the environment's; empty: use an embedded service.

    Raises:
        InvalidArgumentError: It is no text.
    """
    if target is None:
        return check_text(os.environ.get(TARGET_VARIABLE, ""), TARGET_VARIABLE)
    return check_text(target, "target")


@contextlib.asynccontextmanager
async def connected(
    target: str, retry_timeout: float, credentials: Credentials | None = None
) -> AsyncIterator[Connection]:
    """Yields a connection to the service at `target`; empty: to this event loop's embedded one, which asks for nothing.

    Raises:
        InvalidArgumentError: The environment's credentials contradict each other, or what was given makes no sense.
    """
    async with contextlib.AsyncExitStack() as stack:
        if target:
            connection: Connection = ChannelConnection(target, credentials=credentials, retry_timeout=retry_timeout)
        else:
            connects = await stack.enter_async_context(embedded_service())
            connection = connects(retry_timeout)
        stack.push_async_callback(connection.aclose)
        yield connection
