"""inspect-ai's Docker sandbox: `docker compose`, and `docker compose exec` for each command."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inspect_ai.util._concurrency import init_concurrency
from inspect_ai.util._sandbox.docker.cleanup import project_cleanup_startup
from inspect_ai.util._sandbox.docker.docker import DockerSandboxEnvironment
from inspect_ai.util._subprocess import init_max_subprocesses

from benchmarks.containers import LIFETIME, USER, Containers
from benchmarks.contender import Contender, Place, Unsupported, checked

_TASK = "benchmark"
_IN_FLIGHT = 64


class InspectAi(Contender):
    """Sandboxes. The check of the engine's version that a task begins with is left out: older ones serve, too.

    Args:
        containers: Fields of Containers.
    """

    package = "inspect_ai.util"

    def __init__(self, *, containers: Mapping[str, Any]) -> None:
        self._containers = Containers(**containers)
        hardening = self._containers.settings
        service = {
            "image": self._containers.image,
            "x-local": True,
            "runtime": self._containers.runtime,
            "command": ["sleep", str(LIFETIME)],
            "init": True,  # without it `compose down` waits ten seconds for `sleep`
            "labels": self._containers.labels,
            "user": USER,
            "cap_drop": hardening["CapDrop"],
            "security_opt": hardening["SecurityOpt"],
            "read_only": False,  # it copies archives into the container
            "tmpfs": [f"{path}:{settings}" for path, settings in hardening["Tmpfs"].items()],
            "network_mode": hardening["NetworkMode"],
            "pids_limit": hardening["PidsLimit"],
            "mem_limit": hardening["Memory"],
            "working_dir": "/var/tmp",
        }
        self._compose = json.dumps({"services": {"default": service}})  # which is YAML, too

    async def __aenter__(self) -> Self:
        try:
            await checked("docker", "compose", "version")
        except RuntimeError:
            raise Unsupported("needs the docker compose plugin, which is not installed") from None
        init_concurrency()
        init_max_subprocesses(_IN_FLIGHT)
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        self._file = Path(self._directory.name) / "compose.yaml"
        self._file.write_text(self._compose)
        project_cleanup_startup()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await DockerSandboxEnvironment.task_cleanup(_TASK, str(self._file), cleanup=True)
        self._directory.cleanup()

    async def create(self) -> Place:
        """Starts a sandbox."""
        return _SandboxPlace(await DockerSandboxEnvironment.sample_init(_TASK, str(self._file), {}))

    async def destroy(self, place: Place) -> None:
        """Removes it."""
        assert isinstance(place, _SandboxPlace)
        await DockerSandboxEnvironment.sample_cleanup(_TASK, str(self._file), place.environments, interrupted=False)


class _SandboxPlace(Place):
    def __init__(self, environments: Any) -> None:
        self.environments = environments
        self._sandbox = environments["default"]

    async def execute(self, command: Sequence[str]) -> None:
        result = await self._sandbox.exec(list(command))
        if not result.success:
            raise RuntimeError(f"{command} ended with {result.returncode}: {result.stderr[:500]}")

    async def write(self, path: str, content: bytes) -> None:
        await self._sandbox.write_file(path, content)

    async def read(self, path: str) -> bytes:
        content: bytes = await self._sandbox.read_file(path, text=False)
        return content
