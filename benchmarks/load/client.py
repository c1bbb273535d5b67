"""Our own client as a load generator: `python -m benchmarks.load.client`, a process of several.

Standard input is a JSON object, an Order; standard output another: when it began and ended, how long each call took,
and how many failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Any

from agentic_isolation import AgenticWorkspace, IsolationError
from agentic_isolation.service import ServiceClient
from benchmarks.load.taken import NotTaken, Taken
from benchmarks.results import percentile
from benchmarks.worker_process import CHECKOUT

_PATIENCE = 60.0
"""Seconds beyond the run's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a process is to do."""

    method: str
    target: str
    workspace_ids: Sequence[str]
    in_flight: int
    seconds: float


async def run(order: Order, *, processes: int) -> Taken:
    """Has processes of our client ask together.

    Args:
        order: What all of them do together.
        processes: How many there are; no more than calls in flight.

    Raises:
        NotTaken: One of them failed.
    """
    processes = min(processes, order.in_flight)
    shares = [len(range(number, order.in_flight, processes)) for number in range(processes)]
    orders = [Order(**asdict(order) | {"in_flight": share}) for share in shares]
    answers = await asyncio.gather(*map(_in_a_process, orders))
    began = min(answer["began"] for answer in answers)
    ended = max(answer["ended"] for answer in answers)
    samples = [sample for answer in answers for sample in answer["samples_ms"]]
    if not samples:
        raise NotTaken("every call failed")
    failed = sum(answer["failed"] for answer in answers)
    rate = len(samples) / (ended - began)
    return Taken(rate, percentile(samples, 0.5), percentile(samples, 0.99), len(samples) + failed, failed)


async def _in_a_process(order: Order) -> dict[str, Any]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.load.client", stdin=pipe, stdout=pipe, cwd=CHECKOUT
    )
    try:
        output, _ = await asyncio.wait_for(
            process.communicate(json.dumps(asdict(order)).encode()), order.seconds + _PATIENCE
        )
    finally:
        with contextlib.suppress(ProcessLookupError):
            if process.returncode is None:
                process.kill()
        await process.wait()
    if process.returncode:
        raise NotTaken(f"a client ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(output)
    return answer


async def _load(order: Order) -> dict[str, object]:
    samples: list[float] = []
    failed = 0

    async def caller(call: Callable[[], Awaitable[object]]) -> None:
        nonlocal failed
        while time.monotonic() < until:
            began = time.perf_counter()
            try:
                await call()
            except IsolationError:
                failed += 1
            else:
                samples.append((time.perf_counter() - began) * 1000)

    async with contextlib.AsyncExitStack() as stack:
        calls = [
            await stack.enter_async_context(_call(order.method, order.target, workspace_id))
            for workspace_id in order.workspace_ids
        ]
        for call in calls:
            await call()  # connections are made by the first one
        began = time.monotonic()
        until = began + order.seconds
        async with asyncio.TaskGroup() as group:
            for call in islice(cycle(calls), order.in_flight):
                group.create_task(caller(call))
        return {"began": began, "ended": time.monotonic(), "samples_ms": samples, "failed": failed}


@contextlib.asynccontextmanager
async def _call(method: str, target: str, workspace_id: str) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Yields what makes one call about a workspace."""
    if method == "GetWorkspace":
        async with ServiceClient(target) as service:
            yield lambda: service.describe_workspace(workspace_id)
        return
    async with AgenticWorkspace.connect(workspace_id, target=target) as workspace:

        async def stream() -> None:
            async for _ in workspace.stream(["echo", "x"]):
                pass

        yield stream if method == "Stream" else lambda: workspace.execute(["true"])


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_load(Order(**json.load(sys.stdin))))))
