"""The ways in: one interface over every provider and every road to it, so that one suite is run over all of them.

A way is named "PROVIDER-ROAD", for example "local-served". Roads are

* `direct`: the provider object, in this process, without gRPC;
* `embedded`: AgenticWorkspace with the service that it embeds in this process;
* `served`: AgenticWorkspace with a service in a process of its own.

Another provider is one more name in PROVIDERS, and no test changes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import agentic_isolation
from agentic_isolation import AgenticWorkspace, ExecuteResult, FileInfo, OutputStream, WorkspaceConfig, WorkspaceInfo
from tests.support import proc

PROVIDERS = {"local": "WorkspaceLocalProvider"}
ROADS = ("direct", "embedded", "served")
WAYS = tuple(f"{provider}-{road}" for provider in PROVIDERS for road in ROADS)
LEASE = 60.0
"""Seconds that a workspace outlives a test run that was killed."""


class Workspace(Protocol):
    """What AgenticWorkspace offers and every way gives."""

    @property
    def info(self) -> WorkspaceInfo: ...
    @property
    def id(self) -> str: ...
    async def execute(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        output_limit: int | None = None,
    ) -> ExecuteResult: ...
    def stream(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
    ) -> OutputStream: ...
    async def write_file(self, path: str, content: str | bytes, *, mode: int | None = None) -> FileInfo: ...
    async def read_file(self, path: str) -> bytes: ...
    async def file_exists(self, path: str) -> bool: ...
    async def stat_file(self, path: str) -> FileInfo: ...
    async def list_directory(self, path: str = ".") -> list[FileInfo]: ...
    async def make_directory(self, path: str, *, parents: bool = True) -> FileInfo: ...
    async def remove_file(self, path: str, *, recursive: bool = False) -> None: ...
    async def close(self) -> None: ...


class DirectWorkspace:
    """A workspace of a provider object, with the methods of AgenticWorkspace."""

    def __init__(self, provider: agentic_isolation.WorkspaceLocalProvider, info: WorkspaceInfo) -> None:
        self._provider = provider
        self.info = info
        self.id = info.id

    async def execute(self, command: str | Sequence[str], **options: Any) -> ExecuteResult:
        return await self._provider.execute(self.info, command, **options)

    def stream(self, command: str | Sequence[str], **options: Any) -> OutputStream:
        return self._provider.stream(self.info, command, **options)

    async def write_file(self, path: str, content: str | bytes, *, mode: int | None = None) -> FileInfo:
        return await self._provider.write_file(self.info, path, content, mode=mode)

    async def read_file(self, path: str) -> bytes:
        return await self._provider.read_file(self.info, path)

    async def file_exists(self, path: str) -> bool:
        return await self._provider.file_exists(self.info, path)

    async def stat_file(self, path: str) -> FileInfo:
        return await self._provider.stat_file(self.info, path)

    async def list_directory(self, path: str = ".") -> list[FileInfo]:
        return await self._provider.list_directory(self.info, path)

    async def make_directory(self, path: str, *, parents: bool = True) -> FileInfo:
        return await self._provider.make_directory(self.info, path, parents=parents)

    async def remove_file(self, path: str, *, recursive: bool = False) -> None:
        await self._provider.remove_file(self.info, path, recursive=recursive)

    async def close(self) -> None:
        await self._provider.destroy(self.info)


@dataclass(frozen=True, slots=True)
class Way:
    """One way in.

    Args:
        name: "PROVIDER-ROAD".
        target: Address of the service, for the road that needs one.
        service_pid: The process that is the service on this road.
    """

    name: str
    target: str
    service_pid: int
    _direct: agentic_isolation.WorkspaceLocalProvider | None

    @classmethod
    def of(cls, name: str, *, target: str = "", service_pid: int | None = None) -> Way:
        """Returns a way by its name; the service is a process of its own only on the road `served`."""
        provider, road = name.split("-", 1)
        if road == "served":
            return cls(name, target, service_pid or 0, None)
        direct = getattr(agentic_isolation, PROVIDERS[provider])() if road == "direct" else None
        return cls(name, "", os.getpid(), direct)

    @property
    def provider(self) -> str:
        return self.name.partition("-")[0]

    def config(self, **settings: Any) -> WorkspaceConfig:
        """Returns the configuration of an ordinary workspace of this provider, with some settings changed."""
        return replace(WorkspaceConfig(provider=self.provider, lease=LEASE), **settings)

    async def create(self, config: WorkspaceConfig | None = None) -> Workspace:
        """Makes a workspace, to be closed by the caller."""
        config = config or self.config()
        if self._direct is not None:
            return DirectWorkspace(self._direct, await self._direct.create(config))
        return await AgenticWorkspace(config, target=self.target)

    @contextlib.asynccontextmanager
    async def open(self, config: WorkspaceConfig | None = None) -> AsyncIterator[Workspace]:
        """Makes a workspace and closes it on the way out."""
        workspace = await self.create(config)
        try:
            yield workspace
        finally:
            await workspace.close()

    def guest_pids(self) -> list[int]:
        """Returns the guests of this way's workspaces, where they are processes of this machine."""
        return proc.guests_below(self.service_pid)
