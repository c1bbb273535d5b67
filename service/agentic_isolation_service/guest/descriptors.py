"""Waiting for file descriptors on the event loop."""

from __future__ import annotations

import asyncio


async def readable(descriptor: int) -> None:
    """Waits until there is something to read: of a pidfd, that its process has ended (pidfd_open(2))."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_reader(descriptor, told.set)
    try:
        await told.wait()
    finally:
        loop.remove_reader(descriptor)
