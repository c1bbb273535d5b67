"""A service that is asked for ten times what it can do: it goes on with what it has, and refuses the rest at once.

The load generators have the lowest priority and the service the usual one: on a small machine they take no more than
what it leaves, and still ask for far more than it can do, as asking is so much less work. OVERLOAD_SECONDS says for how
long; with OVERLOAD_FIGURES set, what was measured is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agentic_isolation import AgenticWorkspace
from agentic_isolation.credentials import Credentials
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
from tests.integration.wire import seconds
from tests.support import proc
from tests.support.eventually import eventually
from tests.support.program import Program
from tests.support.service import ServedProcess

SECONDS = float(os.environ.get("OVERLOAD_SECONDS", "6"))
TIMES = 10
"""How much more is asked for than can be done."""
HEALTH_P99 = 0.1
"""Seconds, where the service gets the processor that it wants; where others want it too, that much longer."""
LATEST_LINE = 1.0
"""Seconds after which a line that was printed has arrived, at most."""
GROWTH = 256 << 20
"""Bytes that the service may grow by, at its peak: what is under way when it notices, a few calls for each of which it
keeps half a megabyte."""
LATER_GROWTH = 8 << 20
"""Bytes by which the peak of each quarter may be above that of the one before. One burst is larger than the last, and
the next is not; what is never given back shows in every quarter."""
RECOVERY = 5.0
"""Seconds after the end of the load within which everything is as before."""
STREAMS = 4
BY_THE_CORE = {"CANCELLED: CANCELLED", "RESOURCE_EXHAUSTED: Too many pending requests for this server"}
"""What gRPC itself refuses, by its version: more than the service can even refuse."""
LINES = """
import time
from pathlib import Path
for number in range(1_000_000):
    print(number, time.time(), flush=True)
    time.sleep(0.05)
"""


def token(name: str) -> str:
    return f"ais_the-token-of-{name}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    file = tmp_path_factory.mktemp("overload") / "config.toml"
    tables = []
    for name in ("many", "few"):
        digest = hashlib.sha256(token(name).encode()).hexdigest()
        tables.append(f'[[token]]\nname = "{name}"\nsha256 = "{digest}"\n')
        tables.append(f'[[tenant]]\nname = "{name}"\nidentities = ["token:{name}"]\nproviders = ["local"]\n')
    file.write_text("".join(tables))
    with ServedProcess("--address", "127.0.0.1:0", "--config", str(file), "--log-level", "info") as served:
        yield served


class Generator(Program):
    """An offering client."""

    def __init__(self, target: str, workspace: str, rate: float, for_seconds: float) -> None:
        super().__init__(
            "tests.support.offering_client",
            *(target, token("many"), workspace, str(rate), str(for_seconds)),
            name="a load generator",
        )

    async def result(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        result: dict[str, Any] = json.loads(line)
        return result


class Tenant:
    """Calls of one tenant."""

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        self.name = name
        self.stub: Any = pb_grpc.WorkspaceServiceStub(channel)
        self.metadata = (("authorization", f"Bearer {token(name)}"),)
        self.workspace = ""

    @contextlib.asynccontextmanager
    async def having_a_workspace(self) -> AsyncIterator[None]:
        request = pb.CreateWorkspaceRequest(provider="local", lease_duration=seconds(SECONDS + 120))
        answer = await self.stub.CreateWorkspace(request, metadata=self.metadata)
        self.workspace = answer.workspace.workspace_id
        yield
        await self.stub.DestroyWorkspace(
            pb.DestroyWorkspaceRequest(workspace_id=self.workspace), metadata=self.metadata
        )

    def client(self, target: str) -> AgenticWorkspace:
        """Returns the workspace as the Python client has it."""
        credentials = Credentials(token=token(self.name))
        return AgenticWorkspace.connect(self.workspace, target=target, credentials=credentials)

    async def execute(self) -> float:
        """Runs a command and returns the seconds that it took."""
        command = pb.Command(argv=pb.ArgumentList(args=["true"]))
        request = pb.ExecuteRequest(workspace_id=self.workspace, command=command)
        began = time.monotonic()
        await self.stub.Execute(request, metadata=self.metadata)
        return time.monotonic() - began


class Watch:
    """What becomes of those who were there before the load."""

    def __init__(self, channel: grpc.aio.Channel, tenant: Tenant) -> None:
        self._health: Any = health_pb2_grpc.HealthStub(channel)
        self._tenant = tenant
        self.health: list[float] = []
        self.late: list[float] = []
        """Seconds from when each line was printed to when it came."""
        self.few: list[float] = []
        """Seconds that each of a few commands took."""

    async def ask_for_health(self) -> None:
        while True:
            began = time.monotonic()
            answer = await self._health.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            self.health.append(time.monotonic() - began)
            await asyncio.sleep(0.02)

    async def read_lines(self) -> None:
        command = pb.Command(argv=pb.ArgumentList(args=["python3", "-c", LINES]))
        request = pb.StreamRequest(
            workspace_id=self._tenant.workspace, start=pb.ProcessStart(command=command, line_mode=True)
        )
        expected = 0
        async for event in self._tenant.stub.Stream(request, metadata=self._tenant.metadata):
            now = time.time()
            for line in event.output.data.splitlines():
                number, printed = line.split()
                assert int(number) == expected, "a line is missing, doubled or out of order"
                expected += 1
                self.late.append(now - float(printed))
        raise AssertionError("the stream has ended")

    async def run_a_few_commands(self, workspace: AgenticWorkspace) -> None:
        """Runs them by the Python client. The core cannot tell tenants apart; whoever meets that repeats the call."""
        while True:
            began = time.monotonic()
            result = await workspace.execute(["true"])
            assert result.success
            self.few.append(time.monotonic() - began)
            await asyncio.sleep(0.1)


class Memory:
    """What the service takes, at its peak in each quarter of the load."""

    def __init__(self, pid: int) -> None:
        proc.reset_peak(pid)
        self._pid = pid
        self._before = proc.resident_bytes(pid)
        self._peaks: list[int] = []

    async def take_peaks(self) -> None:
        while True:
            await asyncio.sleep(SECONDS / 4)
            self._peaks.append(proc.peak_bytes(self._pid))
            proc.reset_peak(self._pid)

    @property
    def growth(self) -> int:
        return max(*self._peaks, proc.peak_bytes(self._pid)) - self._before

    @property
    def later_growth(self) -> int:
        """What it has grown by in every quarter but the first."""
        return max(min(later - earlier for earlier, later in itertools.pairwise(self._peaks[:4])), 0)


def processor_time(pid: int) -> tuple[int, int]:
    """Returns how long the service's event loop has run, and how long it has waited for a processor."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(ran), int(waited)


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


@pytest.mark.timeout(120 + 2 * SECONDS)
async def test_ten_times_what_it_can_do(served: ServedProcess) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        many, few = Tenant(channel, "many"), Tenant(channel, "few")
        async with many.having_a_workspace(), few.having_a_workspace(), few.client(served.target) as client:
            usual = sorted([await few.execute() for _ in range(20)])[10]
            capacity = await measured_capacity(served.target, many.workspace)
            watch = Watch(channel, few)
            figures: dict[str, Any] = {"usual_ms": usual * 1e3, "capacity": capacity}
            memory = Memory(served.pid)
            before = processor_time(served.pid)
            async with asyncio.TaskGroup() as group:
                watchers = [
                    group.create_task(watch.ask_for_health()),
                    group.create_task(watch.run_a_few_commands(client)),
                ]
                watchers += [group.create_task(watch.read_lines()) for _ in range(STREAMS)]
                watchers.append(group.create_task(memory.take_peaks()))
                figures |= await overload(served.target, many.workspace, capacity)
                for watcher in watchers:
                    watcher.cancel()
            ran, waited = (now - then for now, then in zip(processor_time(served.pid), before, strict=True))
            figures |= {
                "held_up": (ran + waited) / ran,
                "growth_mib": memory.growth / (1 << 20),
                "later_growth_mib": memory.later_growth / (1 << 20),
                "health_p99_ms": p99(watch.health) * 1e3,
                "health_max_ms": max(watch.health) * 1e3,
                "line_p99_ms": p99(watch.late) * 1e3,
                "line_max_ms": max(watch.late) * 1e3,
                "lines": len(watch.late),
                "few_done": len(watch.few),
                "few_p99_ms": p99(watch.few) * 1e3,
            }
            figures["recovery_s"] = await recovery(many, few, usual)
            if "OVERLOAD_FIGURES" in os.environ:
                print(json.dumps(figures, indent=1))
            check(figures)
    await eventually(lambda: "no overload any more" in served.log, "the service says that it is over")


async def measured_capacity(target: str, workspace: str) -> float:
    with Generator(target, workspace, 0, 2) as generator:
        result = await generator.result()
    assert set(result["told"]) == {"done"}, "as long as no more is asked than can be done, nothing is refused"
    return float(result["told"]["done"] / result["took"])


async def overload(target: str, workspace: str, capacity: float) -> dict[str, Any]:
    """Asks for TIMES as much for SECONDS, from two programs, and returns what has become of it."""
    with contextlib.ExitStack() as stack:
        rate = TIMES * capacity / 2
        generators = [stack.enter_context(Generator(target, workspace, rate, SECONDS)) for _ in range(2)]
        results = await asyncio.gather(*(generator.result() for generator in generators))
    told: Counter[str] = sum((Counter(result["told"]) for result in results), Counter())
    took = max(result["took"] for result in results)
    return {
        "told": told,
        "asked_per_s": (told.total() - told["not sent"]) / SECONDS,
        "done_per_s": told["done"] / took,
        "took_s": took,
        "median_done_s": [result["median"] for result in results],
    }


async def recovery(many: Tenant, few: Tenant, usual: float) -> float:
    """Returns the seconds until many commands at a time are done as fast as ever, and none is refused."""
    began = time.monotonic()
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            alone = await few.execute()
            await asyncio.gather(*(many.execute() for _ in range(32)))
            if alone < max(5 * usual, 0.05):
                return time.monotonic() - began
        assert time.monotonic() - began < 4 * RECOVERY
        await asyncio.sleep(0.1)


def check(figures: dict[str, Any]) -> None:
    told = figures["told"]
    assert set(told) <= {"done", "OVERLOADED", "not sent"} | BY_THE_CORE
    assert told["OVERLOADED"] > 0
    assert figures["done_per_s"] > figures["capacity"] / 5, "it goes on doing what it can, though refusing is work too"
    assert figures["health_p99_ms"] < HEALTH_P99 * 1e3 * figures["held_up"]
    assert figures["line_max_ms"] < LATEST_LINE * 1e3
    assert figures["lines"] > STREAMS * SECONDS * 5
    assert figures["growth_mib"] < GROWTH / (1 << 20)
    assert figures["later_growth_mib"] < LATER_GROWTH / (1 << 20)
    assert figures["few_done"] > SECONDS / 3, "who asks for little is not refused for what others ask for"
    assert figures["recovery_s"] < RECOVERY
