"""What a service is asked for under load, as ghz asks it; client.py asks the same by our own client."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SERVICE = "agentic_isolation.v1.WorkspaceService"


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of call."""

    title: str
    method: str
    """Of the service."""
    provider: str
    """What the workspaces are made by that it is about."""
    request: Callable[[str], dict[str, Any]]
    """Makes the request about the workspace of an id, in JSON; strings may hold ghz's templates."""

    def data(self, workspace_ids: Sequence[str]) -> str:
        """Returns the requests about some workspaces, for ghz: it sends one after the other, over and over."""
        return json.dumps([self.request(workspace_id) for workspace_id in workspace_ids])


def _get(workspace_id: str) -> dict[str, Any]:
    return {"workspace_id": workspace_id}


def _execute(workspace_id: str) -> dict[str, Any]:
    # Our own client gives each command an id, too, so that a repeat is known as one.
    return {"workspace_id": workspace_id, "request_id": "{{newUUID}}", "command": {"argv": {"args": ["true"]}}}


def _stream(workspace_id: str) -> dict[str, Any]:
    start = {"command": {"argv": {"args": ["echo", "x"]}}}
    return {"workspace_id": workspace_id, "request_id": "{{newUUID}}", "start": start}


ASKS = {
    "get": Ask("GetWorkspace", "GetWorkspace", "local", _get),
    "execute-local": Ask("Execute `true`, local", "Execute", "local", _execute),
    "execute-docker": Ask("Execute `true`, docker/runc", "Execute", "docker", _execute),
    "stream-local": Ask("Stream of `echo x`, local", "Stream", "local", _stream),
}
