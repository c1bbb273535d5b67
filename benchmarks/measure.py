"""Timing of coroutines: latency of one at a time, rate of several at once."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Operation = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one operation after the other."""

    median: float
    p95: float
    count: int


async def latency(operation: Operation, *, count: int, warmup: int = 10) -> Latency:
    """Runs an operation `count` times, one after the other, after some that are not counted."""
    for _ in range(warmup):
        await operation()
    samples = []
    for _ in range(count):
        start = time.perf_counter()
        await operation()
        samples.append((time.perf_counter() - start) * 1000)
    samples.sort()
    return Latency(statistics.median(samples), samples[int(len(samples) * 0.95)], count)


async def rate(operation: Operation, *, in_flight: int, seconds: float) -> float:
    """Returns how many operations per second end when `in_flight` of them always run."""
    done = 0
    end = time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await operation()
            done += 1

    start = time.perf_counter()
    async with asyncio.TaskGroup() as workers:
        for _ in range(in_flight):
            workers.create_task(worker())
    return done / (time.perf_counter() - start)
