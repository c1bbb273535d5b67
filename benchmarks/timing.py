"""Timing of coroutines: how long one takes after the other, and how many end per second when several run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

Operation = Callable[[], Awaitable[object]]


def milliseconds_since(began: float) -> float:
    """Returns the milliseconds since a moment of time.perf_counter()."""
    return (time.perf_counter() - began) * 1000


async def timed(operation: Operation) -> float:
    """Runs an operation and returns how many milliseconds it took."""
    began = time.perf_counter()
    await operation()
    return milliseconds_since(began)


async def latencies(operation: Operation, *, count: int, seconds: float, warmup: int = 3) -> list[float]:
    """Runs an operation one after the other, `count` times or until `seconds` are over, and returns milliseconds."""
    for _ in range(warmup):
        await operation()
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < count and (time.perf_counter() < end or not samples):
        samples.append(await timed(operation))
    return samples


async def rate(operation: Operation, *, in_flight: int, seconds: float) -> float:
    """Returns how many operations end per second while `in_flight` of them always run."""
    done = 0
    began = time.perf_counter()
    end = began + seconds

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await operation()
            done += 1

    async with asyncio.TaskGroup() as workers:
        for _ in range(in_flight):
            workers.create_task(worker())
    return done / (time.perf_counter() - began)


async def at_most(limit: int, operations: list[Operation]) -> None:
    """Runs operations to their ends, at most `limit` at a time."""
    gate = asyncio.Semaphore(limit)

    async def one(operation: Operation) -> None:
        async with gate:
            await operation()

    async with asyncio.TaskGroup() as tasks:
        for operation in operations:
            tasks.create_task(one(operation))
