"""Memory that an idle workspace costs: in the service, and in processes of its own."""

from __future__ import annotations

from functools import partial

from benchmarks.contender import Place, Stage
from benchmarks.processes import memory_of
from benchmarks.scale import Scale
from benchmarks.timing import at_most

_AT_A_TIME = 8
_FIRST = 10
"""Workspaces that are there before, for what a service takes once and not for each."""


async def turn(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Makes many workspaces, runs a command in each, and compares memory before and after."""
    contender = stage.contender
    service = contender.service_pid()
    places: list[Place] = []

    async def add() -> None:
        place = await contender.create()
        places.append(place)
        await place.execute(["true"])

    try:
        await at_most(_AT_A_TIME, [add] * _FIRST)
        before = memory_of(service)
        await at_most(_AT_A_TIME, [add] * scale.workspaces)
        after = memory_of(service)
        figures = {
            "service_pss_kib": [(after.proportional - before.proportional) / scale.workspaces],
            "service_rss_kib": [(after.resident - before.resident) / scale.workspaces],
        }
        for place in places[:_FIRST]:
            for kind, pids in (await contender.processes(place)).items():
                memory = memory_of(*pids)
                figures.setdefault(f"{kind}_rss_kib", []).append(memory.resident)
                figures.setdefault(f"{kind}_pss_kib", []).append(memory.proportional)
        return figures
    finally:
        await at_most(_AT_A_TIME, [partial(contender.destroy, place) for place in places])
