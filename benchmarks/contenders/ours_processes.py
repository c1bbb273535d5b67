"""Which processes a workspace costs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence

from agentic_isolation_service.providers.docker.container import container_name
from agentic_isolation_service.providers.docker.engine import Engine
from benchmarks import processes
from benchmarks.contender import Unsupported

_SERVES = re.compile(r"agentic-guest\S* serve$")


async def processes_of(workspace_id: str, runtime: str, service: int) -> Mapping[str, Sequence[int]]:
    """Returns a workspace's processes: `guest`, its `shim`, the `bridge` to it, and those of the `engine`.

    Raises:
        Unsupported: They are none of this machine's, or are not told apart from others'.
    """
    if runtime == "local":
        return await asyncio.to_thread(_of_a_local_guest, service)
    engine = Engine()
    try:
        async with engine.client() as client:
            shown = await client.containers.container(container_name(workspace_id)).show()
    finally:
        await engine.aclose()
    pid = int(shown["State"]["Pid"])
    if runtime == "runc" and not _SERVES.search(processes.arguments(pid)):
        raise Unsupported("the engine's processes are not this machine's")
    return await asyncio.to_thread(_of_a_container, pid, str(shown["Id"]), runtime)


def _of_a_container(pid: int, container: str, runtime: str) -> Mapping[str, Sequence[int]]:
    if runtime == "gvisor":
        # Guest, shim and bridge are in the sandbox's memory.
        return {"engine": [pid for pid in processes.everyone() if container in processes.arguments(pid)]}
    shim = processes.parent(pid)
    bridges = [child for child in processes.children(shim) if child != pid]
    return {"guest": [pid], "shim": processes.descendants(pid), "bridge": bridges, "engine": [shim]}


def _of_a_local_guest(service: int) -> Mapping[str, Sequence[int]]:
    """One of the service's guests is as good as another."""
    for pid in processes.children(service):
        if _SERVES.search(processes.arguments(pid)):
            return {"guest": [pid], "shim": processes.descendants(pid)}
    raise Unsupported("the service's guests are not its children")
