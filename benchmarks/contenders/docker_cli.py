"""The `docker` command line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Self

from benchmarks.containers import LABEL, LIFETIME, USER, Containers
from benchmarks.contender import Contender, Place, checked, lines_of


class DockerCli(Contender):
    """Containers in which `docker exec` runs commands.

    Args:
        containers: Fields of Containers.
    """

    def __init__(self, *, containers: Mapping[str, Any]) -> None:
        self._containers = Containers(**containers)
        self._docker = ["docker", "--host", self._containers.host]

    async def __aenter__(self) -> Self:
        await checked(*self._docker, "version")
        return self

    async def create(self) -> Place:
        """Creates a container and starts it."""
        options = _options(self._containers)
        created = await checked(*self._docker, "create", *options, self._containers.image, "sleep", str(LIFETIME))
        container = created.decode().strip()
        try:
            await checked(*self._docker, "start", container)
        except BaseException:
            await checked(*self._docker, "rm", "--force", container)
            raise
        return _CliPlace([*self._docker, "exec", container], container)

    async def destroy(self, place: Place) -> None:
        """Removes it: `docker rm --force`."""
        assert isinstance(place, _CliPlace)
        await checked(*self._docker, "rm", "--force", place.container)


class _CliPlace(Place):
    def __init__(self, prefix: Sequence[str], container: str) -> None:
        self._prefix = prefix
        self.container = container

    async def execute(self, command: Sequence[str]) -> None:
        await checked(*self._prefix, *command)

    async def lines(self, command: Sequence[str]) -> AsyncGenerator[str, None]:
        async for line in lines_of(self._output(command)):
            yield line

    async def bulk(self, command: Sequence[str]) -> int:
        return sum([len(piece) async for piece in self._output(command)])

    async def _output(self, command: Sequence[str]) -> AsyncGenerator[bytes, None]:
        process = await asyncio.create_subprocess_exec(*self._prefix, *command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            while piece := await process.stdout.read(1 << 18):
                yield piece
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
            await process.wait()


def _options(containers: Containers) -> list[str]:
    hardening = containers.settings
    options = ["--user", USER, "--label", f"{LABEL}={containers.run}", "--runtime", containers.runtime]
    options += ["--rm", "--read-only", "--log-driver", "none", "--network", "none"]
    options += ["--ipc", "private", "--cgroupns", "private", "--pids-limit", str(hardening["PidsLimit"])]
    options += ["--memory", str(hardening["Memory"]), "--memory-swap", str(hardening["MemorySwap"])]
    options += ["--cpus", str(hardening["NanoCpus"] / 1e9)]
    for name in hardening["CapDrop"]:
        options += ["--cap-drop", name]
    for name in hardening["SecurityOpt"]:
        options += ["--security-opt", name]
    for path, settings in hardening["Tmpfs"].items():
        options += ["--tmpfs", f"{path}:{settings}"]
    for limit in hardening["Ulimits"]:
        options += ["--ulimit", f"{limit['Name']}={limit['Soft']}:{limit['Hard']}"]
    return options
