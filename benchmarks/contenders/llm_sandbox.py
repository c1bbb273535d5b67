"""llm-sandbox: sessions in containers, by docker-py's exec, in threads."""

from __future__ import annotations

import asyncio
import shlex
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
from llm_sandbox import SandboxSession

from benchmarks.containers import LIFETIME, USER, Containers
from benchmarks.contender import Contender, Place, lines_of
from benchmarks.threads import Threads

_FILES = "/srv"


class LlmSandbox(Contender):
    """Sessions.

    Args:
        containers: Fields of Containers; of the settings it takes what docker-py has names for.
    """

    package = "llm_sandbox"

    def __init__(self, *, containers: Mapping[str, Any]) -> None:
        self._containers = Containers(**containers)
        hardening = self._containers.settings
        self._settings = {
            "command": ["sleep", str(LIFETIME)],
            "labels": self._containers.labels,
            "tty": False,
            "user": USER,
            "runtime": self._containers.runtime,
            "init": True,  # without it closing waits ten seconds for `sleep`
            "cap_drop": hardening["CapDrop"],
            "security_opt": hardening["SecurityOpt"],
            "read_only": False,  # it copies archives into the container
            "tmpfs": hardening["Tmpfs"],
            "network_mode": hardening["NetworkMode"],
            "pids_limit": hardening["PidsLimit"],
            "mem_limit": hardening["Memory"],
            "memswap_limit": hardening["MemorySwap"],
            "nano_cpus": hardening["NanoCpus"],
        }
        self._threads = Threads()

    async def __aenter__(self) -> Self:
        self._client = docker.DockerClient(base_url=self._containers.host, version="auto", max_pool_size=Threads.COUNT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.close()
        self._client.close()

    async def create(self) -> Place:
        """Opens a session, without the set-up of a Python environment, for which it needs a network."""
        session = SandboxSession(
            client=self._client,
            lang="python",
            image=self._containers.image,
            keep_template=True,
            skip_environment_setup=True,
            workdir=_FILES,
            runtime_configs=dict(self._settings),
        )
        await self._threads.run(session.open)
        return _SessionPlace(session, self._threads)

    async def destroy(self, place: Place) -> None:
        """Closes the session."""
        assert isinstance(place, _SessionPlace)
        await self._threads.run(place.session.close)


class _SessionPlace(Place):
    def __init__(self, session: Any, threads: Threads) -> None:
        self.session = session
        self._threads = threads

    async def execute(self, command: Sequence[str]) -> None:
        result = await self._threads.run(lambda: self.session.execute_command(shlex.join(command)))
        if result.exit_code != 0:
            raise RuntimeError(f"{command} ended with {result.exit_code}")

    async def lines(self, command: Sequence[str]) -> AsyncGenerator[str, None]:
        async for line in lines_of(self._output(command)):
            yield line

    async def bulk(self, command: Sequence[str]) -> int:
        return sum([len(piece) async for piece in self._output(command)])

    async def write(self, path: str, content: bytes) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            await self._threads.run(lambda: self.session.copy_to_runtime(file.name, f"{_FILES}/{path}"))

    async def read(self, path: str) -> bytes:
        with tempfile.TemporaryDirectory() as directory:
            copy = Path(directory) / path
            await self._threads.run(lambda: self.session.copy_from_runtime(f"{_FILES}/{path}", str(copy)))
            return copy.read_bytes()

    async def _output(self, command: Sequence[str]) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        def came(piece: str | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def run() -> None:
            try:
                self.session.execute_command(shlex.join(command), on_stdout=came)
            finally:
                came(None)

        running = asyncio.ensure_future(self._threads.run(run))
        while (piece := await pieces.get()) is not None:
            yield piece.encode()
        await running
