"""What `top` shows, asked of the service again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from agentic_isolation import IsolationError, ProcessInfo, ServiceClient, WorkspaceInfo

MOST_WORKSPACES = 500
"""Workspaces that are shown; a table of more helps nobody."""
_CALLS_AT_A_TIME = 8
_LOOK_TIMEOUT = 10.0
_CALL_TIMEOUT = 5.0
_FIRST_PAUSE = 0.3
"""Seconds between two looks from which shares of CPU time are told."""


@dataclass(frozen=True, slots=True)
class WorkspaceRow:
    """A workspace as it is now. What neither its provider nor its processes tell is None."""

    info: WorkspaceInfo
    cpu_percent: float | None
    """Of one CPU, since the look before."""
    memory_bytes: int | None
    pids: int | None


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process as it is now."""

    info: ProcessInfo
    cpu_percent: float | None
    """As WorkspaceRow's."""


@dataclass(frozen=True, slots=True)
class _Usage:
    cpu_seconds: float | None
    memory_bytes: int | None
    pids: int | None


class Shares:
    """Shares of CPU time between one look and the next."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, float]] = {}

    def note(self, times: Mapping[str, float | None], now: float) -> dict[str, float | None]:
        """Takes the CPU times in seconds of all that are there, and returns their shares in percent of one CPU."""
        shares: dict[str, float | None] = {}
        for name, seconds in times.items():
            before = self._before.get(name)
            if seconds is None or before is None or now <= before[1]:
                shares[name] = None
            else:
                shares[name] = max(0.0, seconds - before[0]) / (now - before[1]) * 100
        self._before = {name: (seconds, now) for name, seconds in times.items() if seconds is not None}
        return shares


class Watcher:
    """Looks at a service. A workspace that ends, or does not answer in time, harms no other.

    Args:
        target: The service's address.
        labels: Only workspaces that have all of these.
    """

    def __init__(self, target: str, labels: Mapping[str, str]) -> None:
        self._service = ServiceClient(target, retry_timeout=0)
        self._labels = labels
        self._shares = Shares()
        self._process_shares = Shares()
        self._calls = asyncio.Semaphore(_CALLS_AT_A_TIME)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._service.__aexit__(kind, error, traceback)

    async def workspaces(self) -> list[WorkspaceRow]:
        """Returns the workspaces, oldest first.

        Raises:
            IsolationError, TimeoutError: The service cannot be reached.
        """
        found: list[WorkspaceInfo] = []
        async with asyncio.timeout(_LOOK_TIMEOUT):
            async for info in self._service.list_workspaces(self._labels):
                found.append(info)
                if len(found) >= MOST_WORKSPACES:
                    break
        until = asyncio.get_running_loop().time() + _LOOK_TIMEOUT
        usages = await asyncio.gather(*(self._usage(info.id, until) for info in found))
        times = {info.id: usage.cpu_seconds for info, usage in zip(found, usages, strict=True)}
        shares = self._shares.note(times, asyncio.get_running_loop().time())
        return [
            WorkspaceRow(info, shares[info.id], usage.memory_bytes, usage.pids)
            for info, usage in zip(found, usages, strict=True)
        ]

    async def processes(self, workspace_id: str) -> list[ProcessRow]:
        """Returns the processes of a workspace, those that run first, else the latest first.

        Raises:
            IsolationError, TimeoutError: They cannot be had.
        """
        async with asyncio.timeout(_CALL_TIMEOUT):
            found = await self._service.list_processes(workspace_id)
        found.sort(key=lambda process: (process.running, process.started_at), reverse=True)
        times = {f"{workspace_id} {process.id}": process.cpu_seconds for process in found}
        shares = self._process_shares.note(times, asyncio.get_running_loop().time())
        return [ProcessRow(process, shares[f"{workspace_id} {process.id}"]) for process in found]

    async def _usage(self, workspace_id: str, until: float) -> _Usage:
        """Returns what a workspace uses: by its control group, else as the sum of its processes; nothing after `until`.

        That is a time of the event loop: others that do not answer may be in its way.
        """
        try:
            async with asyncio.timeout_at(until), self._calls, asyncio.timeout(_CALL_TIMEOUT):
                usage = (await self._service.describe_workspace(workspace_id)).usage
                if usage is not None and usage.cpu_seconds is not None:
                    return _Usage(usage.cpu_seconds, usage.memory_bytes, usage.pids)
                processes = await self._service.list_processes(workspace_id)
        except (IsolationError, TimeoutError):
            return _Usage(None, None, None)
        return _Usage(
            sum(process.cpu_seconds for process in processes),
            sum(process.memory_bytes for process in processes),
            sum(process.processes for process in processes),
        )


async def look_twice(target: str, labels: Mapping[str, str]) -> list[WorkspaceRow]:
    """Returns the workspaces of a service with their shares of CPU time.

    Raises:
        IsolationError, TimeoutError: As Watcher.workspaces.
    """
    async with Watcher(target, labels) as watcher:
        await watcher.workspaces()
        await asyncio.sleep(_FIRST_PAUSE)
        return await watcher.workspaces()
