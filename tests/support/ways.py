"""The ways in: one interface over every kind of place and every road to it, so that one suite is run over all of them.

A way is named "PLACE-ROAD", for example "local-served". Roads are

* `direct`: the provider object, in this process, without gRPC;
* `embedded`: AgenticWorkspace with the service that it embeds in this process;
* `served`: AgenticWorkspace with a service in a process of its own.

What a place does, no road changes, and what a road does, no place: each kind of place is reached by a service, and each
road leads to some. All pairs would say the same for minutes more of containers.

Another kind of place is one more entry in PLACES, and no test changes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import agentic_isolation
from agentic_isolation import AgenticWorkspace, SecurityConfig, WorkspaceConfig
from tests.support import container, proc


@dataclass(frozen=True, slots=True)
class PlaceKind:
    """What workspaces are made of."""

    provider: str
    """The provider's name."""
    direct: str
    """The name of its class for direct use."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What its WorkspaceConfig needs beside the provider: an image, a runtime."""
    marks: tuple[str, ...] = ()
    """Markers of its tests: what they need of the machine."""
    roads: tuple[str, ...] = ("served",)
    """By which roads the suite is run over it."""


PLACES = {
    "local": PlaceKind("local", "WorkspaceLocalProvider", roads=("embedded", "served")),
    "runc": PlaceKind(
        "docker",
        "WorkspaceDockerProvider",
        {"security": SecurityConfig(use_gvisor=False)},
        marks=("docker",),
        roads=("direct", "served"),
    ),
    "gvisor": PlaceKind(
        "docker",
        "WorkspaceDockerProvider",
        {"security": SecurityConfig(use_gvisor=True)},
        marks=("docker", "gvisor"),
    ),
}
WAYS = {f"{place}-{road}": kind.marks for place, kind in PLACES.items() for road in kind.roads}
"""All ways, with their markers."""
LEASE = 60.0
"""Seconds that a workspace outlives a test run that was killed."""


Workspace = AgenticWorkspace
"""What every way gives."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way in; made by `Way.of`."""

    name: str
    """"PLACE-ROAD"."""
    kind: PlaceKind
    target: str
    """Address of the service, on the road `served`."""
    service_pid: int
    """The process that is the service: this one, but on the road `served`."""
    retry_timeout: float
    """Seconds for which calls bear with what is unavailable."""
    _direct: agentic_isolation.WorkspaceLocalProvider | None

    @classmethod
    def of(cls, name: str, *, target: str = "", service_pid: int = 0, retry_timeout: float = 60.0) -> Way:
        """Returns a way by its name; target and service_pid count on the road `served` only."""
        place, _, road = name.rpartition("-")
        kind = PLACES[place]
        if road == "served":
            return cls(name, kind, target, service_pid, retry_timeout, None)
        direct = getattr(agentic_isolation, kind.direct)(retry_timeout=retry_timeout) if road == "direct" else None
        return cls(name, kind, "", os.getpid(), retry_timeout, direct)

    @property
    def provider(self) -> str:
        return self.kind.provider

    def config(self, **settings: Any) -> WorkspaceConfig:
        """Returns the configuration of an ordinary workspace of this kind, with some settings changed."""
        ordinary = WorkspaceConfig(provider=self.provider, lease=LEASE, **self.kind.settings)
        return replace(ordinary, **settings)

    async def create(self, config: WorkspaceConfig | None = None) -> Workspace:
        """Makes a workspace, to be closed by the caller."""
        config = config or self.config()
        if self._direct is not None:
            return self._direct.workspace(await self._direct.create(config))
        return await AgenticWorkspace(config, target=self.target, retry_timeout=self.retry_timeout)

    @contextlib.asynccontextmanager
    async def open(self, config: WorkspaceConfig | None = None) -> AsyncIterator[Workspace]:
        """Makes a workspace and closes it on the way out."""
        workspace = await self.create(config)
        try:
            yield workspace
        finally:
            await workspace.close()

    def alive(self, workspace_id: str, mark: str) -> int:
        """Counts the processes with a mark in a workspace, which need not answer any more."""
        if "gvisor" in self.kind.marks:
            return container.alive(workspace_id, mark)  # gVisor's processes are none of this machine's
        return len(proc.mentioning(mark))

    def guest_pids(self) -> list[int]:
        """Returns the guests of this way's workspaces, where they are processes of this machine."""
        return proc.guests_below(self.service_pid)
