"""Containers that have used up their memory: found by the engine's events. Sandboxes of gVisor's are ended then."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiodocker

from agentic_isolation.errors import ProviderUnavailableError
from agentic_isolation_service.providers.docker.engine import Engine

_PAUSE = 1.0
"""Seconds until an engine that was away is asked again."""
_FROM_THE_FIRST = "0"
"""Since when events are asked for: an engine has kept its last 256, of whatever kind, since it was started."""
_KEPT_EVENTS = 256
_TOLD_WITHIN = 0.5
"""Seconds after a container's end within which the events of it have come."""
_NOTICED_WITHIN = 3.0
"""Seconds within which an engine has noticed that a container's first process has ended, and told of it."""
_KILLED = "137"
"""The exit code of a container whose first process had SIGKILL: 128 and the signal's number."""
_EXHAUSTED = "it was out of memory, which under gVisor ends the whole workspace; give it more by limits.memory"
_EXHAUSTED_PERHAPS = (
    "it was killed, and not by the engine: out of memory, most likely, which under gVisor ends the whole workspace; "
    "give it more by limits.memory, unless it was a command in it that has killed process 1"
)
_GUEST_KILLED = (
    "its guest was killed, and not by the engine: out of memory, most likely, which files take, too; give it more by "
    "limits.memory, and keep limits.disk below that"
)
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Watched:
    """What the engine has told of a container."""

    sandbox: bool
    """Whether it is one of gVisor's, which is over with its first want of memory."""
    killed: bool = False
    """Whether the engine was asked to kill it."""
    cause: str = ""
    """Why it has ended, where it is memory that has ended it."""
    told: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the cause is known, or that there is none."""

    def end(self, cause: str) -> None:
        self.cause = cause
        self.told.set()


@dataclass(frozen=True, slots=True)
class _Event:
    """What has happened to a container: `oom`, `kill`, `die`."""

    action: str
    name: str
    exit_code: str

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> _Event:
        attributes = data.get("Actor", {}).get("Attributes", {})
        return cls(data.get("Action", ""), attributes.get("name", ""), attributes.get("exitCode", ""))


class MemoryWatch:
    """Kills gVisor's containers at the first `oom` event (Docker Engine API 1.41, `GET /events`).

    There the kernel kills one process of the sandbox, and what is left of it hangs with all the memory that it has. In
    other containers the guest tells which command it was, and the workspace goes on, unless it was the guest itself.
    Where the process that is killed takes the rest with it, containerd may see the end first, and never tells of the
    memory: such a container was killed without a `kill` event.

    An event that came while nobody listened is found for as long as the engine keeps it. Its record of the container is
    no substitute: Docker 20.10 sets `OOMKilled` only when the container has ended, which one that hangs does not.

    Args:
        engine: Where the containers are.
        labels: What they all carry.
    """

    def __init__(self, engine: Engine, labels: Mapping[str, str]) -> None:
        self._engine = engine
        self._labels = [f"{name}={value}" for name, value in labels.items()]
        self._watched: dict[str, _Watched] = {}
        self._strangers: deque[_Event] = deque(maxlen=_KEPT_EVENTS)
        """Events of containers that are not watched: one of them was not yet adopted, perhaps."""
        self._task: asyncio.Task[None] | None = None
        self._kills: set[asyncio.Task[None]] = set()

    def add(self, name: str, *, sandbox: bool) -> None:
        """Begins to watch a container, a sandbox of gVisor's or another, which may have used up its memory already."""
        watched = self._watched[name] = _Watched(sandbox)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="docker-memory-watch")
        for event in self._strangers:
            if event.name == name:
                self._take(watched, event)

    def discard(self, name: str) -> None:
        """Forgets a container."""
        self._watched.pop(name, None)

    def cause(self, name: str) -> str:
        """Returns why a container has ended, or is being ended; empty: nothing is known of its memory."""
        watched = self._watched.get(name)
        return "" if watched is None else watched.cause

    async def cause_of_end(self, name: str, *, noticed: bool = True) -> str:
        """Returns the cause for a container that has ended, of which may be told a moment later.

        Args:
            name: The container.
            noticed: Whether the engine knows that it has ended.
        """
        if (watched := self._watched.get(name)) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TOLD_WITHIN if noticed else _NOTICED_WITHIN):
                    await watched.told.wait()
        return self.cause(name)

    async def exhausted(self, name: str, *, wait: bool) -> bool:
        """Returns whether the kernel has killed a process of a sandbox of gVisor's for want of memory.

        With `wait` it may be told a moment later, as for `cause_of_end`.
        """
        if (watched := self._watched.get(name)) is None or not watched.sandbox:
            return False
        cause = await self.cause_of_end(name) if wait else self.cause(name)
        return cause == _EXHAUSTED

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
        filters = json.dumps({"type": ["container"], "event": ["oom", "kill", "die"], "label": self._labels})
        async with self._engine.client() as client:
            events = client.events.subscribe(filters=filters, since=_FROM_THE_FIRST)  # type: ignore[no-untyped-call]
            try:
                while (data := await events.get()) is not None:
                    event = _Event.of(data)
                    if (watched := self._watched.get(event.name)) is None:
                        self._strangers.append(event)
                    else:
                        self._take(watched, event)
            finally:
                await client.events.stop()  # type: ignore[no-untyped-call]

    def _take(self, watched: _Watched, event: _Event) -> None:
        if event.action == "kill":
            watched.killed = True
        elif watched.cause:
            return  # and only once is it killed
        elif not watched.sandbox:
            if event.action == "die":
                watched.end(_GUEST_KILLED if event.exit_code == _KILLED and not watched.killed else "")
        elif event.action == "oom":
            watched.end(_EXHAUSTED)
            self._end(event.name)
        elif event.exit_code == _KILLED and not watched.killed:
            watched.end(_EXHAUSTED_PERHAPS)

    def _end(self, name: str) -> None:
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
