"""What workspaces have left in a Docker Engine, as the engine tells it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from agentic_isolation_service.providers.docker.creation import Sweeper
from agentic_isolation_service.providers.docker.engine import LOOK_TIMEOUT
from agentic_isolation_service.providers.docker.engine import Engine as Connection
from tests.engine import Engine
from tests.engine.plugin import RUN_LABEL
from tests.support.eventually import eventually

WORKSPACES = "agentic-isolation=workspace"
"""The label of every workspace, for engines that a test has for itself."""


def containers(engine: Engine, label: str = RUN_LABEL) -> list[dict[str, Any]]:
    """The containers with a label, running or not.

    Without ghosts: a 20.10 that was killed and removes a container at its start, while it still registers it, goes on
    listing it until its next start, without a name or files, and says `No such container` to who would remove it.
    """
    query = {"all": "1", "filters": json.dumps({"label": [label]})}
    listed = engine.api.json("GET", "/containers/json", query=query)
    return [each for each in listed if each["Names"] or engine.keeps(each["Id"])]


def volumes(engine: Engine, label: str = RUN_LABEL) -> list[str]:
    """The names of the volumes with a label."""
    query = {"filters": json.dumps({"label": [label]})}
    return [volume["Name"] for volume in engine.api.json("GET", "/volumes", query=query)["Volumes"] or ()]


def held_for_nobody(engine: Engine, label: str = RUN_LABEL) -> list[str]:
    """The names of the volumes with a label that the engine holds for containers which it has no more.

    One with live restore that starts takes hold of the volumes of all containers that ran when it began, also for those
    that have ended and were removed meanwhile. It lets nobody remove these volumes until its next start.
    """
    listed = engine.api.json("GET", "/containers/json", query={"all": "1"})
    mounted = {mount.get("Name") for each in listed for mount in each["Mounts"]}
    query = {"filters": json.dumps({"label": [label], "dangling": ["false"]})}
    held = engine.api.json("GET", "/volumes", query=query)["Volumes"] or ()
    return [volume["Name"] for volume in held if volume["Name"] not in mounted]


def networks(engine: Engine, label: str = RUN_LABEL) -> list[str]:
    """The names of the networks with a label; the one that workspaces share is the engine's and has no run's."""
    query = {"filters": json.dumps({"label": [label]})}
    return [network["Name"] for network in engine.api.json("GET", "/networks", query=query)]


def left(engine: Engine, label: str = RUN_LABEL) -> list[str]:
    """What there is with a label, in words."""
    found = [f"container {each['Names']} {each['State']}" for each in containers(engine, label)]
    found += [f"network {name}" for name in networks(engine, label)]
    return found + [f"volume {name}" for name in volumes(engine, label)]


def held(engine: Engine, label: str = RUN_LABEL) -> set[str]:
    """What there is with a label, by names alone: to be compared with what there was."""
    names = {name for each in containers(engine, label) for name in each["Names"]}
    return names | set(networks(engine, label)) | set(volumes(engine, label))


async def sweep(engine: Engine) -> None:
    """What the next service does, at once."""
    name, _, value = WORKSPACES.partition("=")
    connection = Connection(engine.docker_host)
    try:
        async with connection.client() as client:
            await Sweeper({name: value}, stale_after=-1, patience=LOOK_TIMEOUT).sweep(client)
    finally:
        await connection.aclose()


async def emptied(engine: Engine, label: str = RUN_LABEL, *, within: float = 20) -> None:
    """Waits until an engine has nothing with a label."""
    with contextlib.suppress(AssertionError):
        await eventually(lambda: not left(engine, label), "nothing is left", within=within)
    remaining = left(engine, label)
    assert not remaining, f"left in the engine: {remaining}"


def container_of(engine: Engine, workspace_id: str) -> str:
    """The id of a workspace's container."""
    [container] = containers(engine, f"agentic-isolation.workspace-id={workspace_id}")
    return str(container["Id"])
