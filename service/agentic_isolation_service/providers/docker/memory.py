"""Sandboxes that have used up their memory: found by the engine's events, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping

import aiodocker

from agentic_isolation.errors import ProviderUnavailableError
from agentic_isolation_service.providers.docker.engine import Engine

_PAUSE = 1.0
"""Seconds until the events of an engine that has ended them are asked for again."""
_log = logging.getLogger(__name__)


class MemoryWatch:
    """Kills gVisor's containers at the first `oom` event (Docker Engine API 1.41, `GET /events`).

    There the kernel kills one process of the sandbox, and what is left of it hangs with all the memory that it has. In
    other containers the guest tells which command it was, and the workspace goes on.

    Args:
        engine: Where the containers are.
        labels: What they all carry.
    """

    def __init__(self, engine: Engine, labels: Mapping[str, str]) -> None:
        self._engine = engine
        self._labels = [f"{name}={value}" for name, value in labels.items()]
        self._exhausted: dict[str, bool] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, name: str) -> None:
        """Begins to watch a container."""
        self._exhausted[name] = False
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="docker-memory-watch")

    def discard(self, name: str) -> None:
        """Forgets a container."""
        self._exhausted.pop(name, None)

    def is_exhausted(self, name: str) -> bool:
        """Returns whether a container has been ended because it had used up its memory."""
        return self._exhausted.get(name, False)

    async def aclose(self) -> None:
        """Ends the watch; may be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            # An engine that is down says so to whoever needs it.
            with contextlib.suppress(ProviderUnavailableError, aiodocker.DockerError):
                await self._listen()
            await asyncio.sleep(_PAUSE)

    async def _listen(self) -> None:
        filters = json.dumps({"type": ["container"], "event": ["oom"], "label": self._labels})
        async with self._engine.client() as client:
            events = client.events.subscribe(filters=filters)  # type: ignore[no-untyped-call]
            try:
                while (event := await events.get()) is not None:
                    name = event.get("Actor", {}).get("Attributes", {}).get("name", "")
                    if self._exhausted.get(name) is False:
                        self._exhausted[name] = True
                        _log.info("out of memory", extra={"container": name})
                        with contextlib.suppress(aiodocker.DockerError):
                            await client.containers.container(name).kill()
            finally:
                await client.events.stop()  # type: ignore[no-untyped-call]
