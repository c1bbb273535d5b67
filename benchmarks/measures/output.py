"""Output: how soon it comes, and how fast."""

from __future__ import annotations

import contextlib
import time

from benchmarks.contender import Stage, Unsupported
from benchmarks.scale import Scale
from benchmarks.timing import milliseconds_since

_TICKING = """
import sys, time
due = time.monotonic()
for _ in range(int(sys.argv[1])):
    due += 0.01
    time.sleep(max(0, due - time.monotonic()))
    sys.stdout.write(f"{time.monotonic_ns()} {time.time_ns()}\\n")
    sys.stdout.flush()
"""
"""Prints what its clocks show each 10 ms."""


async def first_line(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Takes the time until the first line of `echo` is here."""
    place = await stage.place()
    samples: list[float] = []
    end = time.perf_counter() + scale.seconds
    while len(samples) < scale.count and (time.perf_counter() < end or not samples):
        began = time.perf_counter()
        async with contextlib.aclosing(place.lines(["echo", "x"])) as lines:
            await anext(lines)
            samples.append(milliseconds_since(began))
            async for _ in lines:
                pass
    return {"first_line_ms": samples}


async def lines(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Takes the time from a line's print inside to its arrival here, by a clock that both have in common."""
    place = await stage.place()
    now = time.monotonic_ns if place.clock == "monotonic" else time.time_ns
    field = 0 if place.clock == "monotonic" else 1
    async with contextlib.aclosing(place.lines([place.python, "-c", _TICKING, str(scale.lines)])) as stream:
        samples = [(now() - int(line.split()[field])) / 1e6 async for line in stream]
    if len(samples) != scale.lines:
        raise RuntimeError(f"{len(samples)} of {scale.lines} lines came")
    return {"line_ms": samples}


async def bulk(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Takes much output as fast as it comes."""
    place = await stage.place()
    began = time.perf_counter()
    size = await place.bulk(["head", "-c", str(scale.bulk_bytes), "/dev/zero"])
    took = time.perf_counter() - began
    if size != scale.bulk_bytes:
        raise Unsupported(f"gave {size} of {scale.bulk_bytes} bytes")
    return {"bulk_mib_s": [(scale.bulk_bytes >> 20) / took]}
