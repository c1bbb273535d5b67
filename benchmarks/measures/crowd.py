"""A crowd: many workspaces that idle beside some that work."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from benchmarks.contender import Place, Stage
from benchmarks.scale import Scale
from benchmarks.timing import at_most, latencies

_AT_A_TIME = 8


async def turn(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Runs `true` all the time in the busy ones, first alone, then beside the idle ones."""
    contender = stage.contender
    places: list[Place] = []

    async def add() -> None:
        place = await contender.create()
        places.append(place)
        await place.execute(["true"])

    try:
        await at_most(_AT_A_TIME, [add] * scale.busy)
        busy = list(places)
        alone, alone_rate = await _work(busy, scale)
        began = time.perf_counter()
        await at_most(_AT_A_TIME, [add] * scale.idle)
        created = time.perf_counter() - began
        beside, beside_rate = await _work(busy, scale)
    finally:
        await at_most(_AT_A_TIME, [partial(contender.destroy, place) for place in places])
    return {
        "busy_ms": alone,
        "busy_per_second": [alone_rate],
        "crowd_ms": beside,
        "crowd_per_second": [beside_rate],
        "creates_per_second": [scale.idle / created],
    }


async def _work(places: list[Place], scale: Scale) -> tuple[list[float], float]:
    """Returns the milliseconds of each command and how many ended per second."""
    seconds = scale.seconds * 3
    async with asyncio.TaskGroup() as tasks:
        began = time.perf_counter()
        workers = [
            tasks.create_task(latencies(partial(place.execute, ["true"]), count=1 << 30, seconds=seconds))
            for place in places
        ]
    took = time.perf_counter() - began
    samples = [sample for worker in workers for sample in worker.result()]
    return samples, len(samples) / took
