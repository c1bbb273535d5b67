"""Files, there and back."""

from __future__ import annotations

import os
import time

from benchmarks.contender import Place, Stage
from benchmarks.scale import Scale
from benchmarks.timing import latencies

_SMALL = 1 << 20


async def small(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Writes a file of 1 MiB and reads it."""
    place = await stage.place()
    content = os.urandom(_SMALL)
    await _both_ways(place, content)

    async def both_ways() -> None:
        await place.write("file", content)
        await place.read("file")

    return {"file_ms": await latencies(both_ways, count=scale.count // 4 + 1, seconds=scale.seconds, warmup=1)}


async def large(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Writes a large file and reads it."""
    place = await stage.place()
    mebibytes = scale.file_bytes >> 20
    wrote, read = await _both_ways(place, os.urandom(_SMALL) * mebibytes)
    return {"write_mib_s": [mebibytes / wrote], "read_mib_s": [mebibytes / read]}


async def _both_ways(place: Place, content: bytes) -> tuple[float, float]:
    """Returns the seconds that writing and reading took, and makes sure that both were done."""
    began = time.perf_counter()
    await place.write("file", content)
    written = time.perf_counter()
    back = await place.read("file")
    end = time.perf_counter()
    if back != content:
        raise RuntimeError(f"of {len(content)} bytes {len(back)} came back, or others")
    return written - began, end - written
