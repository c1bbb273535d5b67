"""docker-py, the engine's Python client, in threads."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import docker

from benchmarks.containers import LIFETIME, USER, Containers
from benchmarks.contender import Contender, Place, lines_of
from benchmarks.threads import Threads

_FILES = "/srv"


class DockerPy(Contender):
    """Containers in which docker-py runs execs.

    Args:
        containers: Fields of Containers.
    """

    package = "docker"

    def __init__(self, *, containers: Mapping[str, Any]) -> None:
        self._containers = Containers(**containers)
        self._threads = Threads()

    async def __aenter__(self) -> Self:
        self._api = docker.APIClient(base_url=self._containers.host, version="auto", num_pools=Threads.COUNT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._api.close()
        self._threads.close()

    async def create(self) -> Place:
        """Creates a container and starts it."""
        return _DockerPyPlace(
            self._api, self._threads, await self._threads.run(lambda: self._start(self._containers.host_config)), self
        )

    async def destroy(self, place: Place) -> None:
        """Removes it."""
        assert isinstance(place, _DockerPyPlace)
        for container in place.containers:
            await self._threads.run(partial(self._api.remove_container, container, v=True, force=True))

    async def start_writable(self) -> str:
        """Starts a container with a writable root."""
        return await self._threads.run(lambda: self._start(self._containers.writable))

    def _start(self, settings: Mapping[str, Any]) -> str:
        command = ["sleep", str(LIFETIME)]
        created = self._api.create_container(
            self._containers.image, command, user=USER, labels=self._containers.labels, host_config=dict(settings)
        )
        container: str = created["Id"]
        self._api.start(container)
        return container


class _DockerPyPlace(Place):
    def __init__(self, api: Any, threads: Threads, container: str, contender: DockerPy) -> None:
        self._api = api
        self._threads = threads
        self._contender = contender
        self.containers = [container]

    async def execute(self, command: Sequence[str]) -> None:
        await self._threads.run(lambda: self._execute(command))

    async def lines(self, command: Sequence[str]) -> AsyncGenerator[str, None]:
        async for line in lines_of(self._threads.iterate(lambda: self._output(command))):
            yield line

    async def bulk(self, command: Sequence[str]) -> int:
        return await self._threads.run(lambda: sum(len(piece) for piece in self._output(command)))

    async def write(self, path: str, content: bytes) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        container = await self._writable()
        await self._threads.run(lambda: self._api.put_archive(container, _FILES, archive.getvalue()))

    async def read(self, path: str) -> bytes:
        container = await self._writable()

        def got() -> bytes:
            pieces, _ = self._api.get_archive(container, f"{_FILES}/{path}")
            with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
                content = tar.extractfile(path)
                assert content is not None
                return content.read()

        return await self._threads.run(got)

    async def _writable(self) -> str:
        if len(self.containers) == 1:
            self.containers.append(await self._contender.start_writable())
        return self.containers[1]

    def _execute(self, command: Sequence[str]) -> None:
        execution = self._api.exec_create(self.containers[0], list(command))["Id"]
        self._api.exec_start(execution)
        code = self._api.exec_inspect(execution)["ExitCode"]
        if code != 0:
            raise RuntimeError(f"{command} ended with {code}")

    def _output(self, command: Sequence[str]) -> Iterator[bytes]:
        execution = self._api.exec_create(self.containers[0], list(command))["Id"]
        output: Iterator[bytes] = self._api.exec_start(execution, stream=True)
        return output
