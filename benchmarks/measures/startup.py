"""What a program waits for before its first call."""

from __future__ import annotations

import sys

from benchmarks.contender import Stage, Unsupported, checked
from benchmarks.scale import Scale
from benchmarks.timing import timed


async def service(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Takes the time from starting a service's program until it listens."""
    contender = stage.contender
    took = await timed(contender.start_service)
    await contender.end_service()
    return {"service_start_ms": [took]}


async def package(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Takes the time of an import, beyond that of an interpreter that imports nothing."""
    name = stage.contender.package
    if not name:
        raise Unsupported("is no package of its own")
    nothing = await timed(lambda: checked(sys.executable, "-c", "pass"))
    something = await timed(lambda: checked(sys.executable, "-c", f"import {name}"))
    return {"import_ms": [something - nothing]}
