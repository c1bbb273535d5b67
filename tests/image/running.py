"""Containers of an engine that a test starts, looks into and ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from tests.engine import Engine
from tests.engine.errors import EngineError
from tests.engine.plugin import RUN_LABEL


class Container:
    """A container that was started.

    Args:
        engine: Its engine.
        identity: Its id.
    """

    def __init__(self, engine: Engine, identity: str) -> None:
        self._api = engine.api
        self.id = identity

    @classmethod
    @contextlib.contextmanager
    def started(cls, engine: Engine, settings: Mapping[str, Any]) -> Iterator[Container]:
        """Makes and starts one, with settings as the engine's API takes them; it goes away on the way out."""
        name, _, value = RUN_LABEL.partition("=")
        content = {**settings, "Labels": {name: value}}
        container = cls(engine, engine.api.json("POST", "/containers/create", content=content)["Id"])
        try:
            container._post("start")
            yield container
        finally:
            with contextlib.suppress(EngineError):
                engine.api.request("DELETE", f"/containers/{container.id}", query={"force": "1", "v": "1"})

    def state(self) -> dict[str, Any]:
        """Returns its state, as the engine tells it."""
        state: dict[str, Any] = self._api.json("GET", f"/containers/{self.id}/json")["State"]
        return state

    def health(self) -> str:
        """Returns what its health checks have found: starting, healthy or unhealthy."""
        return str(self.state().get("Health", {}).get("Status", "none"))

    def execute(self, *words: str, environment: Mapping[str, str] | None = None) -> tuple[str, int]:
        """Runs a command in it; returns what it printed, on either output, and its exit code."""
        variables = [f"{name}={value}" for name, value in (environment or {}).items()]
        content = {"Cmd": words, "Env": variables, "AttachStdout": True, "AttachStderr": True}
        execution = self._api.json("POST", f"/containers/{self.id}/exec", content=content)["Id"]
        told = self._api.request("POST", f"/exec/{execution}/start", content={"Detach": False})
        code = self._api.json("GET", f"/exec/{execution}/json")["ExitCode"]
        return _text(told), int(code)

    def signal(self, name: str) -> None:
        """Sends its first process a signal."""
        self._post("kill", signal=name)

    def wait(self) -> int:
        """Waits for its end and returns its exit code."""
        return int(self._post("wait")["StatusCode"])

    def log(self) -> str:
        """Returns what it has printed so far, on either output."""
        query = {"stdout": "1", "stderr": "1"}
        return _text(self._api.request("GET", f"/containers/{self.id}/logs", query=query))

    def _post(self, what: str, **query: str) -> Any:
        return self._api.json("POST", f"/containers/{self.id}/{what}", query=query)


def _text(frames: bytes) -> str:
    """Returns the text in the engine's frames: a byte for the output, three of nothing, four of length, the piece."""
    pieces = []
    while frames:
        end = 8 + int.from_bytes(frames[4:8], "big")
        pieces.append(frames[8:end])
        frames = frames[end:]
    return b"".join(pieces).decode("utf-8", "replace")
