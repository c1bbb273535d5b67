"""`docker exec` by aiodocker: what many start with."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import aiodocker

from benchmarks.containers import LIFETIME, USER, Containers
from benchmarks.contender import Contender, Place, lines_of

_FILES = "/srv"


class AiodockerExec(Contender):
    """Containers in which aiodocker runs execs.

    Args:
        containers: Fields of Containers.
    """

    package = "aiodocker"

    def __init__(self, *, containers: Mapping[str, Any]) -> None:
        self._containers = Containers(**containers)

    async def __aenter__(self) -> Self:
        self._client = aiodocker.Docker(url=self._containers.host)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.close()

    async def create(self) -> Place:
        """Creates a container and starts it."""
        return ExecPlace(await self._start(self._containers.host_config), self._containers.clock, self)

    async def destroy(self, place: Place) -> None:
        """Removes it."""
        assert isinstance(place, ExecPlace)
        await place.remove()

    async def start_writable(self) -> aiodocker.containers.DockerContainer:
        """Starts a container with a writable root: into a read-only one the engine copies no archive."""
        return await self._start(self._containers.writable)

    async def _start(self, settings: Mapping[str, Any]) -> aiodocker.containers.DockerContainer:
        container = await self._client.containers.create(
            {
                "Image": self._containers.image,
                "Cmd": ["sleep", str(LIFETIME)],
                "User": USER,
                "Labels": self._containers.labels,
                "HostConfig": dict(settings),
            }
        )
        try:
            await container.start()
        except BaseException:
            await container.delete(force=True, v=True)
            raise
        return container


class ExecPlace(Place):
    """A container."""

    def __init__(self, container: aiodocker.containers.DockerContainer, clock: str, contender: AiodockerExec) -> None:
        self._container = container
        self._contender = contender
        self._writable: aiodocker.containers.DockerContainer | None = None
        self.clock = clock

    async def remove(self) -> None:
        """Removes what was created for it."""
        await self._container.delete(force=True, v=True)
        if self._writable is not None:
            await self._writable.delete(force=True, v=True)

    async def execute(self, command: Sequence[str]) -> None:
        execution = await self._container.exec(list(command))
        async with execution.start(detach=False) as stream:
            while await stream.read_out():
                pass
        code = (await execution.inspect())["ExitCode"]
        if code != 0:
            raise RuntimeError(f"{command} ended with {code}")

    async def lines(self, command: Sequence[str]) -> AsyncGenerator[str, None]:
        async for line in lines_of(self._output(command)):
            yield line

    async def bulk(self, command: Sequence[str]) -> int:
        return sum([len(piece) async for piece in self._output(command)])

    async def write(self, path: str, content: bytes) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        await (await self._with_files()).put_archive(_FILES, archive.getvalue())  # type: ignore[no-untyped-call]

    async def read(self, path: str) -> bytes:
        archive = await (await self._with_files()).get_archive(f"{_FILES}/{path}")
        with archive:
            content = archive.extractfile(path)
            assert content is not None
            return content.read()

    async def _with_files(self) -> aiodocker.containers.DockerContainer:
        if self._writable is None:
            self._writable = await self._contender.start_writable()
        return self._writable

    async def _output(self, command: Sequence[str]) -> AsyncGenerator[bytes, None]:
        execution = await self._container.exec(list(command))
        async with execution.start(detach=False) as stream:
            while message := await stream.read_out():
                yield message.data
