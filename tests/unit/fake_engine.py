"""A Docker Engine that answers what a test has it say."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import web

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def answering(answer: Answer, directory: Path) -> AsyncIterator[str]:
    """Serves an engine's API on a socket in a directory, and yields its DOCKER_HOST."""
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.UnixSite(runner, str(directory / "docker.sock")).start()
    yield f"unix://{directory}/docker.sock"
    await runner.cleanup()
