"""Execute `true` on the local provider, next to a plain asyncio subprocess on the host.

The subprocess is the floor: no service, no isolation, no supervision. The unary call is what a round trip to a grpc.aio
service costs by itself. All run in one process tree, in turn, repeatedly, so that the machine's drift hits all alike.
"""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentic_isolation import AgenticWorkspace
from agentic_isolation.v1 import workspace_pb2 as pb
from benchmarks.measure import Operation, latency, rate

IN_FLIGHT = (1, 16)


@dataclass
class Row:
    """One contender's figures, one of each per round."""

    name: str
    operation: Operation
    medians: list[float] = field(default_factory=list)
    p95s: list[float] = field(default_factory=list)
    rates: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in IN_FLIGHT})


async def host_subprocess() -> None:
    """Runs `true` as asyncio does by itself, with both outputs read."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("true", stdout=pipe, stderr=pipe)
    await process.communicate()


async def measure(*, rounds: int, count: int, seconds: float) -> Sequence[Row]:
    """Measures all contenders `rounds` times in turn."""
    async with AgenticWorkspace.create(provider="local") as workspace:
        stub = workspace._lifecycle.connection.stub

        async def execute() -> None:
            await workspace.execute(["true"])

        async def unary() -> None:
            await stub.GetWorkspace(pb.GetWorkspaceRequest(workspace_id=workspace.id))

        rows = [
            Row("asyncio subprocess on the host", host_subprocess),
            Row("unary call without a command", unary),
            Row("Execute, local provider", execute),
        ]
        for _ in range(rounds):
            for row in rows:
                figures = await latency(row.operation, count=count)
                row.medians.append(figures.median)
                row.p95s.append(figures.p95)
                for in_flight in IN_FLIGHT:
                    row.rates[in_flight].append(await rate(row.operation, in_flight=in_flight, seconds=seconds))
    return rows


def report(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Returns each contender's medians over the rounds."""
    return {
        row.name: {
            "median_ms": statistics.median(row.medians),
            "p95_ms": statistics.median(row.p95s),
            **{f"per_second_{n}": statistics.median(row.rates[n]) for n in IN_FLIGHT},
        }
        for row in rows
    }
