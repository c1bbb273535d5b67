"""Where others may look who must not see what callers send and get: each place is one more entry of PLACES."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.engine import Engine
from tests.support.engine_leaks import containers
from tests.support.proc import processes


@dataclass(slots=True)
class Scene:
    """A service in which markers were sent around, after it has ended; its workspaces live on."""

    directory: Path
    """With its state, its audit log and whatever else it was told to write there."""
    workspace_id: str
    engine: Engine | None
    """Of the workspace; None: it is a local one."""
    log: str = ""
    """What the service has logged, at level debug."""
    refusals: list[str] = field(default_factory=list)
    """What its refusals have told: messages, details and trailing metadata."""
    metrics: str = ""
    """What it has served as metrics, at last."""
    spans: bytes = b""
    """What it has sent to a collector."""


def log(scene: Scene) -> bytes:
    return scene.log.encode()


def audit_log(scene: Scene) -> bytes:
    return (scene.directory / "audit.jsonl").read_bytes()


def state_directory(scene: Scene) -> bytes:
    """The files of the state directory, but for those that are a local workspace's own, and the names of all."""
    state = scene.directory / "state"
    paths = [path for path in state.rglob("*") if state / "w" not in path.parents]
    contents = [path.read_bytes() for path in paths if path.is_file()]
    return b"\n".join([*(str(path).encode() for path in paths), *contents])


def engine_metadata(scene: Scene) -> bytes:
    """What an engine tells of a workspace's container and its volumes. It keeps nothing of what is printed there."""
    if scene.engine is None:
        return scene.workspace_id.encode()
    api = scene.engine.api
    [container] = containers(scene.engine, f"agentic-isolation.workspace-id={scene.workspace_id}")
    inspected = api.json("GET", f"/containers/{container['Id']}/json")
    assert inspected["HostConfig"]["LogConfig"]["Type"] == "none"
    return json.dumps([inspected, api.json("GET", "/volumes"), api.json("GET", "/networks")]).encode()


def refusals(scene: Scene) -> bytes:
    return "\n".join([scene.workspace_id, *scene.refusals]).encode()


def metrics(scene: Scene) -> bytes:
    """All metrics, which tell of no workspace."""
    assert 'method="CreateWorkspace"' in scene.metrics
    return f"{scene.workspace_id}\n{scene.metrics}".encode()


def spans(scene: Scene) -> bytes:
    return scene.spans


def process_arguments(scene: Scene) -> bytes:
    """The arguments of all processes of this machine; those of a command are its own, and seen while it runs."""
    return "\n".join([scene.workspace_id, *(process.arguments for process in processes())]).encode()


PLACES: tuple[Callable[[Scene], bytes], ...] = (
    log,
    audit_log,
    state_directory,
    engine_metadata,
    refusals,
    metrics,
    spans,
    process_arguments,
)
"""Each gives all that is to be seen there, with the workspace's id, so that a place that shows nothing is noticed."""
