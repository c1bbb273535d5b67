"""Removing workspaces that nobody waits for, however long it takes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable

from agentic_isolation.errors import UnavailableError

_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between attempts; the last one again and again."""
_log = logging.getLogger(__name__)


class Removals:
    """The removals under way, by workspace. Closed, they make no further attempts."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = asyncio.Event()

    def __contains__(self, workspace_id: str) -> bool:
        return workspace_id in self._tasks

    def begin(self, workspace_id: str, destroy: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Removes a workspace in the background by `destroy`, unless that is being done already; returns the task."""
        if workspace_id not in self._tasks:
            removal = self._tasks[workspace_id] = asyncio.create_task(self._remove(workspace_id, destroy))
            removal.add_done_callback(lambda _: self._tasks.pop(workspace_id, None))
        return self._tasks[workspace_id]

    async def aclose(self) -> None:
        """Awaits the attempts that are being made; may be called twice."""
        self._closed.set()
        await asyncio.gather(*self._tasks.values())

    async def _remove(self, workspace_id: str, destroy: Callable[[], Awaitable[None]]) -> None:
        """Tries until it has gone. A reaper: it reports what happens and tries again."""
        for pause in itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1])):
            try:
                return await destroy()
            except UnavailableError as error:
                _log.warning("a workspace cannot be removed yet: %s", error, extra={"workspace_id": workspace_id})
            except Exception:  # noqa: BLE001  a reaper
                _log.exception("a workspace could not be removed", extra={"workspace_id": workspace_id})
            if self._closed.is_set():
                return None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closed.wait()
        return None
