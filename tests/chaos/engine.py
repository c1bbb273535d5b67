"""The run's own Docker Engine, looked at directly: its containers, their logs, the bridges into them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
import signal
import struct
from collections.abc import Iterator
from typing import Any

from tests import engine as engines
from tests.chaos.jobs import LOG
from tests.engine import Engine, EngineError
from tests.engine.engine import state
from tests.engine.processes import command_lines

_NAMES = tuple(f"live-chaos-{number}" for number in range(1, 5))
_RELEASE = "trixie"
"""Its engine, 26.1, keeps AutoRemove containers through its own restarts; bookworm's does not (moby/moby#46308)."""
_WORKSPACE = "agentic-isolation.workspace-id"
_BRIDGE = re.compile(r"^\S*agentic-guest bridge ")
_BRIDGE_UNDER_GVISOR = re.compile(r"^\S*runsc(-exec)? .* exec ")
_FRAME_HEAD = 8


@contextlib.contextmanager
def own_engine() -> Iterator[Engine]:
    """Brings up an engine with live restore that nobody else on this machine uses, and takes it down at the end.

    Raises:
        EngineError: There can be none.
    """
    directory = state()
    directory.mkdir(parents=True, exist_ok=True)
    for name in _NAMES:
        with (directory / f"{name}.taken").open("ab") as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with engines.session(name, live_restore=True, release=_RELEASE) as engine:
                yield engine
            return
    raise EngineError(f"{len(_NAMES)} other chaos runs are under way on this machine: wait for one to end")


def containers(engine: Engine, label: str) -> dict[str, str]:
    """Returns the ids of running containers with a label, by the workspace that they are."""
    query = {"filters": json.dumps({"label": [label]})}
    listed: list[dict[str, Any]] = engine.api.json("GET", "/containers/json", query=query)
    return {each["Labels"].get(_WORKSPACE, ""): each["Id"] for each in listed}


def remove_container(engine: Engine, container: str) -> None:
    """Removes a container with its volumes, whatever runs in it, as `docker rm -fv` does."""
    engine.api.request("DELETE", f"/containers/{container}", query={"force": "1", "v": "1"})


def read_log(engine: Engine, container: str) -> list[str] | None:
    """Returns the lines of a workspace's log, read by an exec of the engine's; None where that did not work."""
    try:
        created = engine.api.json(
            "POST", f"/containers/{container}/exec", content={"Cmd": ["cat", LOG], "AttachStdout": True}
        )["Id"]
        output = engine.api.request("POST", f"/exec/{created}/start", content={"Detach": False, "Tty": False})
        if engine.api.json("GET", f"/exec/{created}/json")["ExitCode"] != 0:
            return None
    except EngineError:
        return None
    return _unframed(output).decode().splitlines()


def kill_bridge(engine: Engine, chance: random.Random) -> str | None:
    """SIGKILLs the host's side of one bridge into a container of this engine; says which, None where there is none."""
    ours = engine.processes()
    bridges = [pid for pid, words in command_lines().items() if pid in ours and (_is_bridge(" ".join(words)))]
    if not bridges:
        return None
    pid = chance.choice(sorted(bridges))
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            # The pid may have become another process's since; from now on it cannot.
            line = " ".join(command_lines().get(pid, []))
            if _is_bridge(line):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                return f"{pid} {line.split(' ')[0]}"
        finally:
            os.close(handle)
    return None


def _is_bridge(line: str) -> bool:
    return bool(_BRIDGE.match(line) or _BRIDGE_UNDER_GVISOR.match(line))


def _unframed(output: bytes) -> bytes:
    """Returns what an exec wrote, out of the engine's frames: stream, three zeros, length (uint32 BE), payload."""
    written = b""
    while len(output) >= _FRAME_HEAD:
        (length,) = struct.unpack(">I", output[4:_FRAME_HEAD])
        written += output[_FRAME_HEAD : _FRAME_HEAD + length]
        output = output[_FRAME_HEAD + length :]
    return written
