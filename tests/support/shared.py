"""Containers that tests share: making one costs more than most tests do in it.

Each test finds it as new. What a test leaves there is removed, and where that is not enough the container is replaced.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from agentic_isolation import IsolationError
from tests.support.ways import WAYS, Way, Workspace

SHARE = False
"""Off: tests that count a service's workspaces, or an engine's containers, would count shared ones as well."""
_LEASE = 900.0
"""Seconds. Long, because leases are renewed only while a test that shares a workspace runs."""
_LONGEST_PAUSE = 300.0
"""Seconds without such a test after which a workspace is replaced."""
# Removes all files and kills all processes but the guest's and this shell; fails where something stays.
_RESTORE = """
find . /tmp ~ /dev/shm -xdev -mindepth 1 -delete || exit
for process in /proc/[0-9]*; do
  line=; read -r line <$process/cmdline
  case $process:$line in
    *:|/proc/$$:*|*agentic-guest*) ;;
    *) kill -9 ${process#/proc/} || exit ;;
  esac
done 2>/dev/null
"""
_RESTORE_TIMEOUT = 10.0
_MOST_USES = 50
"""Tests after which a workspace is replaced: gVisor keeps a process of this machine for each that ran at a time."""


def is_shared(way: str) -> bool:
    """Whether tests share the workspaces of a way: containers. Directories of this machine are made in no time."""
    return SHARE and bool(WAYS[way])


@dataclass(slots=True)
class _Shared:
    workspace: Workspace
    used: float
    uses: int = 0


class SharedWorkspaces:
    """One workspace for each way, made when it is first asked for. All methods are for one event loop."""

    def __init__(self) -> None:
        self._shared: dict[str, _Shared] = {}

    async def get(self, way: Way) -> Workspace:
        """Returns the way's workspace, which is as new."""
        shared = self._shared.get(way.name)
        if shared is not None and (time.monotonic() - shared.used > _LONGEST_PAUSE or shared.uses >= _MOST_USES):
            await self.discard(way.name)
            shared = None
        if shared is None:
            workspace = await way.create(way.config(lease=_LEASE))
            self._shared[way.name] = shared = _Shared(workspace, time.monotonic())
        shared.uses += 1
        return shared.workspace

    async def give_back(self, way: Way) -> None:
        """Makes the way's workspace as new, or has the next test get another one."""
        shared = self._shared[way.name]
        shared.used = time.monotonic()
        with contextlib.suppress(IsolationError):
            if (await shared.workspace.execute(_RESTORE, timeout=_RESTORE_TIMEOUT)).success:
                return
        await self.discard(way.name)

    async def aclose(self) -> None:
        """Closes them all."""
        for way in list(self._shared):
            await self.discard(way)

    async def discard(self, way: str) -> None:
        """Closes a way's workspace; the next test gets another one."""
        await self._shared.pop(way).workspace.close()
