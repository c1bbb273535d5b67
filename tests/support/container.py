"""What a container holds, asked of the engine: for what no process table of this machine shows."""

from __future__ import annotations

import json
import os

from tests.engine.api import Api
from tests.engine.errors import EngineError

_LIST = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'"


def alive(workspace_id: str, mark: str) -> int:
    """Counts the processes of a workspace's container that have a mark in their arguments; none without a container."""
    api = Api(os.environ["DOCKER_HOST"])
    name = f"agentic-{workspace_id}"
    try:
        asked = {"Cmd": ["sh", "-c", _LIST], "AttachStdout": True, "Tty": True, "User": "0"}
        execution = api.json("POST", f"/containers/{name}/exec", content=asked)["Id"]
        told = api.request("POST", f"/exec/{execution}/start", content={"Detach": False, "Tty": True}, timeout=20)
    except EngineError:
        if _is_there(api, name):
            raise
        return 0
    return told.decode("utf-8", "replace").split().count(mark)


def _is_there(api: Api, name: str) -> bool:
    return bool(api.json("GET", "/containers/json", query={"filters": json.dumps({"name": [f"^/{name}$"]})}))
