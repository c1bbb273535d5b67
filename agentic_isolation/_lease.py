"""Keeping a lease from running out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agentic_isolation.errors import IsolationError, NotAllowedError, UnauthenticatedError

_RENEWALS_PER_LEASE = 4
"""So two attempts in a row may fail at once, or one may not be answered at all."""
_log = logging.getLogger(__name__)


def patience_of(lease: float) -> float:
    """Returns the seconds after which a renewal is given up: as long as leaves time for another one."""
    return lease / 2


async def keep_renewed(workspace_id: str, lease: float, renew: Callable[[], Awaitable[object]]) -> None:
    """Calls `renew` a few times per lease (in seconds) until the task is cancelled, however long each call takes.

    What goes wrong is left for the next attempt: the user's own next call reports it. So is a workspace that is not
    found: a service that has lost its registry, or has other settings for a while, finds it again. That the caller is
    refused is logged as well, as a stream that is read for hours makes no other call: once, until it is let in again.
    """
    refused = False
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        await asyncio.sleep(began + lease / _RENEWALS_PER_LEASE - loop.time())
        began = loop.time()
        try:
            await renew()
        except (UnauthenticatedError, NotAllowedError) as error:
            if not refused:
                # In words: a log that keeps the error would keep the connection.
                why = str(error)
                _log.warning("workspace %s ends with its lease, as renewing that is refused: %s", workspace_id, why)
            refused = True
        except IsolationError:
            pass
        else:
            refused = False


async def end(task: asyncio.Task[None]) -> None:
    """Cancels a task and awaits its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
