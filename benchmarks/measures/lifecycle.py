"""Creating and destroying places."""

from __future__ import annotations

import time

from benchmarks.contender import Stage
from benchmarks.scale import Scale
from benchmarks.timing import milliseconds_since


async def turn(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Creates a place, runs a first command in it, and destroys it."""
    await stage.place()  # what the first place of an engine costs, and a user pays once, is over then
    contender = stage.contender
    figures: dict[str, list[float]] = {"create_ms": [], "first_result_ms": [], "destroy_ms": []}
    for _ in range(scale.lifecycles):
        await contender.before_create()
        began = time.perf_counter()
        place = await contender.create()
        try:
            created = milliseconds_since(began)
            await place.execute(["true"])
            figures["create_ms"].append(created)
            figures["first_result_ms"].append(milliseconds_since(began))
        finally:
            began = time.perf_counter()
            await contender.destroy(place)
        figures["destroy_ms"].append(milliseconds_since(began))
    return figures
