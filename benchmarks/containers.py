"""Containers: ours, under each runtime that the engine has, next to `docker exec` by aiodocker, which many start with.

Both have the same engine, image, runtime and hardening: the contender's container has our own container's HostConfig.
Everything runs in one process tree, in turn.
"""

from __future__ import annotations

import contextlib
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiodocker

from agentic_isolation import AgenticWorkspace, Output, ProviderUnavailableError, SecurityConfig
from agentic_isolation_service.config import DockerConfig
from agentic_isolation_service.providers.docker.container import container_name
from agentic_isolation_service.providers.docker.engine import Engine
from benchmarks.measure import latency, rate

BULK_MIB = 64
_BULK = ["head", "-c", str(BULK_MIB << 20), "/dev/zero"]
_RUNTIMES = {"runc": False, "runsc": True}
_REMAINS = frozenset({"Binds", "Mounts", "AutoRemove"})


class Place(Protocol):
    """A container that runs commands."""

    async def run(self, command: list[str]) -> int:
        """Runs a command to its end, reads all its output, and returns how many bytes that was."""

    async def first_byte(self, command: list[str]) -> None:
        """Runs a command until its first output."""


Opener = Callable[[], contextlib.AbstractAsyncContextManager[Place]]


@dataclass
class Figures:
    """One contender's samples; milliseconds, per second, MiB per second."""

    create: list[float] = field(default_factory=list)
    destroy: list[float] = field(default_factory=list)
    execute: list[float] = field(default_factory=list)
    p95: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)
    first_byte: list[float] = field(default_factory=list)
    bulk: list[float] = field(default_factory=list)

    def medians(self) -> dict[str, float]:
        """Returns the median of each measure."""
        return {name: statistics.median(samples) for name, samples in vars(self).items()}


class OurPlace:
    """A workspace."""

    def __init__(self, workspace: AgenticWorkspace) -> None:
        self.workspace = workspace

    async def run(self, command: list[str]) -> int:
        if command == _BULK:
            events = self.workspace.stream(command).events()
            return sum([len(event.data) async for event in events if isinstance(event, Output)])
        return len((await self.workspace.execute(command)).stdout)

    async def first_byte(self, command: list[str]) -> None:
        async with self.workspace.stream(command) as stream:
            await anext(stream)


class ExecPlace:
    """A container in which aiodocker runs execs."""

    def __init__(self, container: aiodocker.containers.DockerContainer) -> None:
        self.container = container

    async def run(self, command: list[str]) -> int:
        execution = await self.container.exec(command)
        size = 0
        async with execution.start(detach=False) as stream:
            while message := await stream.read_out():
                size += len(message.data)
        await execution.inspect()
        return size

    async def first_byte(self, command: list[str]) -> None:
        execution = await self.container.exec(command)
        async with execution.start(detach=False) as stream:
            await stream.read_out()


async def measure(*, rounds: int, count: int, seconds: float) -> dict[str, dict[str, float]]:
    """Returns each contender's medians; nothing where there is no engine."""
    settings = DockerConfig.from_environment()
    engine = Engine(settings.host)
    try:
        facts = await engine.facts()
    except ProviderUnavailableError:
        return {}
    finally:
        await engine.aclose()
    contenders: dict[str, Opener] = {}
    for runtime, gvisor in _RUNTIMES.items():
        if runtime in facts.runtimes:
            contenders[f"agentic-isolation, {runtime}"] = _ours(gvisor)
            contenders[f"aiodocker exec, {runtime}"] = _exec(engine.host, settings.image, gvisor)
    figures = {name: Figures() for name in contenders}
    for _ in range(rounds):
        for name, opener in contenders.items():
            await _round(opener, figures[name], count, seconds)
    return {name: found.medians() for name, found in figures.items()}


async def _round(opener: Opener, figures: Figures, count: int, seconds: float) -> None:
    began = time.perf_counter()
    async with opener() as place:
        await place.run(["true"])
        figures.create.append(_since(began))
        one = await latency(lambda: place.run(["true"]), count=count)
        figures.execute.append(one.median)
        figures.p95.append(one.p95)
        figures.per_second.append(await rate(lambda: place.run(["true"]), in_flight=16, seconds=seconds))
        figures.first_byte.append((await latency(lambda: place.first_byte(["echo", "x"]), count=count)).median)
        began = time.perf_counter()
        size = await place.run(_BULK)
        if size < BULK_MIB << 20:
            raise RuntimeError(f"{size} bytes of {BULK_MIB} MiB came")
        figures.bulk.append(BULK_MIB / (_since(began) / 1000))
        began = time.perf_counter()
    figures.destroy.append(_since(began))


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000


def _ours(gvisor: bool) -> Opener:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Place]:
        async with AgenticWorkspace.create(provider="docker", security=SecurityConfig(use_gvisor=gvisor)) as workspace:
            yield OurPlace(workspace)

    return opened


def _exec(host: str, image: str, gvisor: bool) -> Opener:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Place]:
        async with aiodocker.Docker(url=host) as client:
            settings = await _hardening(client, gvisor)
            container = await client.containers.create(
                {"Image": image, "Cmd": ["sleep", "infinity"], "User": "1000:1000", "HostConfig": settings},
                name=f"benchmark-{secrets.token_hex(4)}",
            )
            try:
                await container.start()
                yield ExecPlace(container)
            finally:
                await container.delete(force=True, v=True)

    return opened


_HARDENING: dict[bool, dict[str, Any]] = {}


async def _hardening(client: aiodocker.Docker, gvisor: bool) -> dict[str, Any]:
    """Returns the HostConfig of one of our containers, made once to be read, without what only our guest needs."""
    if gvisor not in _HARDENING:
        async with AgenticWorkspace.create(provider="docker", security=SecurityConfig(use_gvisor=gvisor)) as workspace:
            shown = await client.containers.container(container_name(workspace.id)).show()
        _HARDENING[gvisor] = {name: value for name, value in shown["HostConfig"].items() if name not in _REMAINS}
    return _HARDENING[gvisor]
