"""A client keeps its workspace's lease renewed."""

from __future__ import annotations

import asyncio

from agentic_isolation import WorkspaceNotFoundError
from agentic_isolation._lease import end, keep_renewed


async def test_they_go_on_where_the_workspace_was_not_found() -> None:
    """A service finds again what it does not know for a while: without its registry, or under other settings."""
    found = asyncio.Event()
    attempts = 0

    async def renew() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise WorkspaceNotFoundError("there is no workspace of that id")
        found.set()

    renewing = asyncio.create_task(keep_renewed("ws-1", 0.03, renew))
    try:
        async with asyncio.timeout(5):
            await found.wait()
    finally:
        await end(renewing)
