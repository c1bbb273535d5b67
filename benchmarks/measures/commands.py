"""`true`: what a command costs beside what it does."""

from __future__ import annotations

from benchmarks.contender import Stage
from benchmarks.scale import Scale
from benchmarks.timing import latencies, rate

IN_FLIGHT = (1, 16, 64)


async def execute(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Runs one after the other."""
    place = await stage.place()
    return {
        "execute_ms": await latencies(lambda: place.execute(["true"]), count=scale.count, seconds=scale.seconds),
    }


async def rates(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Runs several at a time."""
    place = await stage.place()
    return {
        f"per_second_{n}": [await rate(lambda: place.execute(["true"]), in_flight=n, seconds=scale.seconds)]
        for n in IN_FLIGHT
    }
