"""swe-rex: a server in the container, which is asked over HTTP."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import swerex
from swerex.deployment.docker import DockerDeployment
from swerex.runtime.abstract import Command

from benchmarks.containers import LABEL, USER, Containers
from benchmarks.contender import Contender, Place, Unsupported, checked

_IMAGE = "agentic-isolation-benchmark/swe-rex"
_LIBRARY = "/opt/swe-rex"
_PROGRAM = "#!/usr/bin/env python3\nimport sys\nfrom swerex.server import main\nsys.exit(main())\n"


class SweRex(Contender):
    """Deployments, in an image that has its server: without a registry it is made of the given one.

    Args:
        containers: Fields of Containers. In place of no network they have one: their server needs it.
    """

    package = "swerex.deployment.docker"

    def __init__(self, *, containers: Mapping[str, Any]) -> None:
        self._containers = Containers(**containers)
        hardening = self._containers.settings
        self._label = f"{LABEL}={self._containers.run}"
        self._docker = ["docker", "--host", self._containers.host]
        self._options = ["--runtime", self._containers.runtime, "--label", self._label]
        self._options += ["--user", USER, "--read-only"]
        self._options += ["--pids-limit", str(hardening["PidsLimit"]), "--memory", str(hardening["Memory"])]
        self._options += ["--cpus", str(hardening["NanoCpus"] / 1e9), "--cap-drop", "ALL"]
        self._options += ["--security-opt", "no-new-privileges", "--tmpfs", "/tmp", "--env", "HOME=/tmp"]

    async def __aenter__(self) -> Self:
        logging.disable(logging.WARNING)
        ours = f"{sys.version_info.major}.{sys.version_info.minor}"
        theirs = await checked(*self._docker, "run", "--rm", self._containers.image, "python3", "--version")
        if f" {ours}." not in theirs.decode():
            raise Unsupported(f"is installed here for Python {ours}, and the image has{theirs.decode()[6:].strip()}")
        created = await checked(*self._docker, "create", "--label", self._label, self._containers.image, "true")
        container = created.decode().strip()
        try:
            await self._install(container)
            changes = ["--change", f"ENV PYTHONPATH={_LIBRARY}", "--change", f"LABEL {self._label}"]
            await checked(*self._docker, "commit", *changes, container, _IMAGE)
        finally:
            await checked(*self._docker, "rm", container)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await checked(*self._docker, "rmi", "--force", _IMAGE)

    async def create(self) -> Place:
        """Starts a deployment."""
        deployment = DockerDeployment(
            image=_IMAGE, pull="never", python_standalone_dir=None, docker_args=self._options, startup_timeout=30
        )
        try:
            await deployment.start()
        except BaseException:
            await deployment.stop()
            raise
        return _DeploymentPlace(deployment)

    async def destroy(self, place: Place) -> None:
        """Stops it."""
        assert isinstance(place, _DeploymentPlace)
        await place.deployment.stop()

    async def _install(self, container: str) -> None:
        library = Path(swerex.__file__).parents[1]
        await checked(*self._docker, "cp", str(library), f"{container}:{_LIBRARY}")
        with tempfile.TemporaryDirectory() as directory:
            program = Path(directory) / "swerex-remote"
            program.write_text(_PROGRAM)
            program.chmod(0o755)
            await checked(*self._docker, "cp", str(program), f"{container}:/usr/local/bin/swerex-remote")


class _DeploymentPlace(Place):
    def __init__(self, deployment: Any) -> None:
        self.deployment = deployment

    async def execute(self, command: Sequence[str]) -> None:
        result = await self.deployment.runtime.execute(Command(command=list(command)))
        if result.exit_code != 0:
            raise RuntimeError(f"{command} ended with {result.exit_code}")
