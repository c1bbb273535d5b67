"""One event loop for all that waits on the same connection."""

from __future__ import annotations

import asyncio


def same_loop(loop: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
    """Returns the event loop that runs here. Elsewhere gRPC would send a call and not be able to wait for it.

    Args:
        loop: The one that was used before; None: none was.

    Raises:
        RuntimeError: There is none, or it is another one.
    """
    here = asyncio.get_running_loop()
    if loop not in (None, here):
        raise RuntimeError(
            "it belongs to the event loop that it was first used on; make one for each event loop, or use "
            "agentic_isolation.sync, whose workspaces any thread may use"
        )
    return here
