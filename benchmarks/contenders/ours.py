"""Workspaces of this project, by a service of its own or one that is embedded."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Self

from agentic_isolation import AgenticWorkspace, Output, OutputSource, SecurityConfig
from benchmarks.contender import Ask, Contender, Place, Unsupported
from benchmarks.contenders.ours_processes import processes_of
from benchmarks.contenders.service_process import ServiceProcess

_LEASE = 120.0
"""Seconds that a workspace outlives a benchmark that was killed."""


class Ours(Contender):
    """Workspaces of one kind.

    Args:
        runtime: local, runc or gvisor.
        served: Whether the service is a process of its own; else it is embedded.
    """

    package = "agentic_isolation"

    def __init__(self, *, runtime: str, served: bool) -> None:
        self.runtime = runtime
        self._served = served
        self._service: ServiceProcess | None = None
        self._another: ServiceProcess | None = None
        self._keeper: AgenticWorkspace | None = None

    async def __aenter__(self) -> Self:
        if self._served:
            self._service = await ServiceProcess.start(self.configuration())
        else:
            # An embedded service ends with its last workspace, and would be started anew for each.
            self._keeper = await AgenticWorkspace.create(provider="local", lease=_LEASE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._keeper is not None:
                await self._keeper.close()
            await self.end_service()
        finally:
            if self._service is not None:
                await self._service.stop()

    @property
    def target(self) -> str | None:
        """Address of its service; None: embedded."""
        return self._service.target if self._service else None

    def configuration(self) -> str:
        """Returns what the service is configured with, in TOML."""
        return ""

    async def create(self) -> Place:
        """Makes a workspace."""
        return OurPlace(
            await AgenticWorkspace.create(
                provider="local" if self.runtime == "local" else "docker",
                security=None if self.runtime == "local" else SecurityConfig(use_gvisor=self.runtime == "gvisor"),
                lease=_LEASE,
                target=self.target,
            )
        )

    async def destroy(self, place: Place) -> None:
        """Closes the workspace."""
        assert isinstance(place, OurPlace)
        await place.workspace.close()

    def service_pid(self) -> int:
        """Returns the service's process."""
        if self._service is None:
            raise Unsupported("has its service in the same process")
        return self._service.pid

    async def processes(self, place: Place) -> Mapping[str, Sequence[int]]:
        """Returns the processes of a workspace: guest, shim, bridge, and the engine's."""
        assert isinstance(place, OurPlace)
        return await processes_of(place.workspace.id, self.runtime, self.service_pid())

    async def start_service(self) -> None:
        """Starts another service."""
        self._another = await ServiceProcess.start()

    async def end_service(self) -> None:
        """Ends it."""
        if self._another is not None:
            await self._another.stop()
            self._another = None


class OurPlace(Place):
    """A workspace."""

    def __init__(self, workspace: AgenticWorkspace) -> None:
        self.workspace = workspace
        runtime = workspace.info.isolation.runtime
        self.python = sys.executable if runtime == "local" else "python3"
        self.clock = "realtime" if runtime == "runsc" else "monotonic"

    async def execute(self, command: Sequence[str]) -> None:
        result = await self.workspace.execute(list(command))
        if not result.success:
            raise RuntimeError(f"{command} ended with {result.exit_code}: {result.stderr[:500]}")

    async def lines(self, command: Sequence[str]) -> AsyncGenerator[str, None]:
        async with self.workspace.stream(list(command)) as stream:
            async for line in stream:
                yield line

    async def bulk(self, command: Sequence[str]) -> int:
        events = self.workspace.stream(list(command)).events()
        return sum(
            [
                len(event.data)
                async for event in events
                if isinstance(event, Output) and event.source is OutputSource.STDOUT
            ]
        )

    @contextlib.asynccontextmanager
    async def conversation(self, command: Sequence[str]) -> AsyncGenerator[Ask, None]:
        async with await self.workspace.start(list(command)) as process:
            lines = process.lines()

            async def ask(question: str) -> str:
                await process.write(f"{question}\n")
                return await anext(lines)

            yield ask

    async def write(self, path: str, content: bytes) -> None:
        await self.workspace.write_file(path, content)

    async def read(self, path: str) -> bytes:
        return await self.workspace.read_file(path)
