"""A load test: each ask, by each generator, over each road."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import client, ghz
from benchmarks.load.asks import ASKS, Ask
from benchmarks.load.envoy import envoy
from benchmarks.load.services import Service, services, workspaces
from benchmarks.load.taken import NotTaken

GENERATORS = ("ghz", "python")
_WORKSPACES = 4
"""Of each provider on each replica."""
_PROCESSES = 2
"""Of our own client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to take."""

    asks: Sequence[str]
    """Names in ASKS."""
    in_flight: Sequence[int]
    """Calls at a time."""
    seconds: float
    """For each."""
    envoy: bool = True
    """Whether Envoy is one of the roads."""


@dataclass(frozen=True, slots=True)
class Road:
    """A way that calls go."""

    name: str
    target: str
    replicas: int
    """How many of them have the workspaces that it is about."""


async def take(plan: Plan, log: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Takes the figures; for each the ask, the number in flight, road and generator, and why it is `missing` if it is.

    Args:
        plan: What to take.
        log: File for what services and Envoy say.
        say: Is told how far it is.
    """
    runs: list[dict[str, Any]] = []
    async with services(log, named=plan.envoy) as replicas, _roads(plan, replicas, log, say) as roads:
        for name in plan.asks:
            async with _workspaces(replicas, ASKS[name].provider) as ids_by_replica:
                for in_flight in plan.in_flight:
                    for road in roads:
                        ids = [workspace_id for ids in ids_by_replica[: road.replicas] for workspace_id in ids]
                        for generator in GENERATORS:
                            say(f"{name}, {in_flight} in flight, {road.name}, {generator}")
                            run = {"ask": name, "in_flight": in_flight, "road": road.name, "generator": generator}
                            found = await _found(generator, ASKS[name], road.target, ids, in_flight, plan.seconds)
                            runs.append({**run, **found})
    return runs


@contextlib.asynccontextmanager
async def _roads(
    plan: Plan, replicas: Sequence[Service], log: Path, say: Callable[[str], None]
) -> AsyncIterator[Sequence[Road]]:
    roads = [Road("straight", replicas[0].target, 1)]
    async with contextlib.AsyncExitStack() as stack:
        try:
            if plan.envoy:
                address = await stack.enter_async_context(envoy(replicas, log))
                roads += [Road("Envoy", address, 1), Road("Envoy, two replicas", address, 2)]
        except NotTaken as error:
            say(f"without Envoy: {error}")
        yield roads


@contextlib.asynccontextmanager
async def _workspaces(replicas: Sequence[Service], provider: str) -> AsyncIterator[Sequence[Sequence[str]]]:
    """Yields the ids of workspaces, by replica."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(workspaces(replica.target, provider, _WORKSPACES)) for replica in replicas
        ]


async def _found(
    generator: str, ask: Ask, target: str, workspace_ids: Sequence[str], in_flight: int, seconds: float
) -> Mapping[str, Any]:
    try:
        if generator == "ghz":
            return asdict(await ghz.run(ask, target, workspace_ids, in_flight=in_flight, seconds=seconds))
        order = client.Order(
            method=ask.method, target=target, workspace_ids=workspace_ids, in_flight=in_flight, seconds=seconds
        )
        return asdict(await client.run(order, processes=_PROCESSES))
    except NotTaken as error:
        return {"missing": str(error)}
