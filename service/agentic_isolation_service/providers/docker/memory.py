"""Sandboxes that have used up their memory: found by the engine's events, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Mapping

import aiodocker

from agentic_isolation.errors import ProviderUnavailableError
from agentic_isolation_service.providers.docker.engine import Engine

_PAUSE = 1.0
"""Seconds until an engine that was away is asked again."""
_FROM_THE_FIRST = "0"
"""Since when events are asked for: an engine has kept its last 256, of whatever kind, since it was started."""
_KEPT_EVENTS = 256
_TOLD_WITHIN = 0.5
"""Seconds after a container's end within which its `oom` event has come."""
_log = logging.getLogger(__name__)


class MemoryWatch:
    """Kills gVisor's containers at the first `oom` event (Docker Engine API 1.41, `GET /events`).

    There the kernel kills one process of the sandbox, and what is left of it hangs with all the memory that it has. In
    other containers the guest tells which command it was, and the workspace goes on.

    An event that came while nobody listened is found for as long as the engine keeps it. Its record of the container is
    no substitute: Docker 20.10 sets `OOMKilled` only when the container has ended, which one that hangs does not.

    Args:
        engine: Where the containers are.
        labels: What they all carry.
    """

    def __init__(self, engine: Engine, labels: Mapping[str, str]) -> None:
        self._engine = engine
        self._labels = [f"{name}={value}" for name, value in labels.items()]
        self._exhausted: dict[str, asyncio.Event] = {}
        self._strangers: deque[str] = deque(maxlen=_KEPT_EVENTS)
        """Containers of events that came for none that is watched: one that was not yet adopted, perhaps."""
        self._task: asyncio.Task[None] | None = None
        self._kills: set[asyncio.Task[None]] = set()

    def add(self, name: str) -> None:
        """Begins to watch a container, which may have used up its memory already."""
        self._exhausted[name] = asyncio.Event()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="docker-memory-watch")
        if name in self._strangers:
            self._end(name)

    def discard(self, name: str) -> None:
        """Forgets a container."""
        self._exhausted.pop(name, None)

    def is_exhausted(self, name: str) -> bool:
        """Returns whether a container has been ended because it had used up its memory."""
        exhausted = self._exhausted.get(name)
        return exhausted is not None and exhausted.is_set()

    async def was_exhausted(self, name: str) -> bool:
        """Returns whether a container that has ended had used up its memory, which may be told a moment later."""
        if (exhausted := self._exhausted.get(name)) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TOLD_WITHIN):
                    await exhausted.wait()
        return self.is_exhausted(name)

    async def aclose(self) -> None:
        """Ends the watch; may be called twice."""
        tasks = [*self._kills] if self._task is None else [self._task, *self._kills]
        self._task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            # An engine that is down says so to whoever needs it.
            with contextlib.suppress(ProviderUnavailableError, aiodocker.DockerError):
                await self._listen()
            await asyncio.sleep(_PAUSE)

    async def _listen(self) -> None:
        filters = json.dumps({"type": ["container"], "event": ["oom"], "label": self._labels})
        async with self._engine.client() as client:
            events = client.events.subscribe(filters=filters, since=_FROM_THE_FIRST)  # type: ignore[no-untyped-call]
            try:
                while (event := await events.get()) is not None:
                    name = event.get("Actor", {}).get("Attributes", {}).get("name", "")
                    if name not in self._exhausted:
                        self._strangers.append(name)
                    elif not self.is_exhausted(name):
                        self._end(name)
            finally:
                await client.events.stop()  # type: ignore[no-untyped-call]

    def _end(self, name: str) -> None:
        self._exhausted[name].set()
        _log.info("out of memory", extra={"container": name})
        kill = asyncio.create_task(self._kill(name), name=f"docker-kill:{name}")
        self._kills.add(kill)
        kill.add_done_callback(self._kills.discard)

    async def _kill(self, name: str) -> None:
        """Kills a container, as soon as the engine can be reached."""
        while True:
            try:
                async with self._engine.client() as client:
                    await client.containers.container(name).kill()
            except ProviderUnavailableError:
                await asyncio.sleep(_PAUSE)
            except aiodocker.DockerError:
                return  # it is gone
            else:
                return
