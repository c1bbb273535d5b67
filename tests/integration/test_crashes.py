"""A service is killed before and after each of its effects. The next one keeps every promise, and nothing is left.

Which effects there are is found out by a run without a kill, so that new ones are tested without being listed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.engine import Engine
from tests.integration.lasting import LINGER, LastingService, create, destroy, execute, lasting, listed, output
from tests.integration.pooling import PoolingService, filled, pooling
from tests.integration.wire import Stub
from tests.support.engine_leaks import containers, volumes
from tests.support.eventually import eventually
from tests.support.failpoints import RECORD, Failpoint, Orders
from tests.support.jobs import new_mark

AT_A_TIME = 3
"""Services that are killed at a time."""


class Scenario(Protocol):
    """One thing that a service does, and what it has promised of it."""

    at_start: bool
    """Whether it does that by itself when it starts."""

    async def prepare(self, stub: Stub) -> None:
        """Makes what it needs."""

    def between(self, state: Path) -> None:
        """Changes the state directory while no service runs; for scenarios at a start."""

    async def act(self, stub: Stub) -> None:
        """Does it."""

    async def check(self, stub: Stub) -> None:
        """Repeats it at the next service, checks the promise, and destroys what there is."""


class Creating:
    at_start = False

    def __init__(self, kind: str) -> None:
        self._request = create(kind, request_id=new_mark())

    async def prepare(self, stub: Stub) -> None:
        pass

    def between(self, state: Path) -> None:
        pass

    async def act(self, stub: Stub) -> None:
        await stub.CreateWorkspace(self._request)

    async def check(self, stub: Stub) -> None:
        """There is exactly one workspace, and it works."""
        workspace = (await stub.CreateWorkspace(self._request)).workspace
        assert workspace.state == pb.WORKSPACE_STATE_READY
        assert set(await listed(stub)) == {workspace.workspace_id}
        assert await output(stub, workspace, "echo here") == b"here\n"
        await destroy(stub, workspace.workspace_id)


class Claiming(Creating):
    """The workspace comes out of a pool, which is filled again meanwhile."""

    async def prepare(self, stub: Stub) -> None:
        await filled(stub)

    async def act(self, stub: Stub) -> None:
        await super().act(stub)
        await filled(stub)


class _InWorkspace:
    """A scenario in a workspace that is there."""

    at_start = False

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._workspace = pb.Workspace()

    async def prepare(self, stub: Stub) -> None:
        self._workspace = (await stub.CreateWorkspace(create(self._kind))).workspace

    def between(self, state: Path) -> None:
        pass


class Executing(_InWorkspace):
    async def act(self, stub: Stub) -> None:
        line = "echo run >> runs; echo done"
        self._answer = await stub.Execute(execute(self._workspace, line, request_id="one", linger=LINGER))

    async def check(self, stub: Stub) -> None:
        """The command has run once, or runs now, and gives its result."""
        await self.act(stub)
        assert (self._answer.stdout.head, self._answer.termination.exit_code) == (b"done\n", 0)
        assert await output(stub, self._workspace, "cat runs") == b"run\n"
        await destroy(stub, self._workspace.workspace_id)


class Destroying(_InWorkspace):
    async def act(self, stub: Stub) -> None:
        await destroy(stub, self._workspace.workspace_id)

    async def check(self, stub: Stub) -> None:
        """It is gone, whether this call or the one before it has done that."""
        try:
            await self.act(stub)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND  # noqa: PT017  either is right
        assert not await listed(stub)


class Adopting(_InWorkspace):
    at_start = True

    async def act(self, stub: Stub) -> None:
        assert await output(stub, self._workspace, "echo here") == b"here\n"

    async def check(self, stub: Stub) -> None:
        assert set(await listed(stub)) == {self._workspace.workspace_id}
        await self.act(stub)
        await destroy(stub, self._workspace.workspace_id)


class FindingAgain(Adopting):
    """The registry is lost, and the guests tell."""

    def between(self, state: Path) -> None:
        for path in state.glob("registry.db*"):
            path.unlink()


SCENARIOS: dict[str, type[Creating | Claiming | Executing | Destroying | Adopting]] = {
    "create": Creating,
    "claim": Claiming,
    "destroy": Destroying,
    "execute": Executing,
    "adopt": Adopting,
    "find": FindingAgain,
}
CASES = [
    *(pytest.param("local", name) for name in SCENARIOS),
    # A claim is the same whatever it is of.
    *(pytest.param("runc", name, marks=pytest.mark.docker) for name in SCENARIOS if name != "claim"),
    *(pytest.param("gvisor", name, marks=[pytest.mark.docker, pytest.mark.gvisor]) for name in ("create", "destroy")),
]


@pytest.fixture
def ground(warm: None) -> None:
    """Nothing is asked of the shared service here."""


class Victim:
    """A service that is killed again and again, at one point after the other.

    Args:
        mine: The service.
        directory: Its directory.
        engine: Where its containers are; None where it makes none.
    """

    def __init__(self, mine: LastingService, directory: Path, engine: Engine | None) -> None:
        self._mine = mine
        self._orders = Orders(directory)
        self._engine = engine

    async def record(self, scenario: Scenario) -> list[Failpoint]:
        """Plays a scenario without a kill and returns the points, without those of the other provider."""
        await self._play(scenario, RECORD)
        points = self._orders.take_back()
        await self._check(scenario)
        other = "local" if self._engine else "docker"
        return [point for point in _distinct(points) if not point.effect.startswith(f"{other}.")]

    async def crash(self, scenario: Scenario, point: Failpoint) -> None:
        """Plays a scenario, is killed at a point, and checks what the next service makes of it."""
        try:
            await self._play(scenario, point)
        except grpc.aio.AioRpcError:
            pass  # gone while it was to answer
        except AssertionError as error:
            # Gone before it had begun to serve, and not for a reason that it could have logged.
            assert not "".join(getattr(error, "__notes__", [str(error)]))  # noqa: PT017
        if self._mine.runs:
            assert await self._mine.ended() == (-signal.SIGKILL, ""), f"{point} was not reached"
        self._orders.take_back()
        await self._check(scenario)

    async def _play(self, scenario: Scenario, order: Failpoint | str) -> None:
        async with self._mine.running() as stub:
            await scenario.prepare(stub)
        if scenario.at_start:
            await self._mine.end(signal.SIGKILL)
            scenario.between(self._mine.state)
        self._orders.give(order)
        async with self._mine.running() as stub:
            await scenario.act(stub)

    async def _check(self, scenario: Scenario) -> None:
        async with self._mine.running() as stub:
            await scenario.check(stub)
        if isinstance(self._mine, PoolingService):
            await self._mine.drain()
        await eventually(lambda: not self._left(), "nothing of the workspace is left")

    def _left(self) -> list[str]:
        """What there is, in words: directories, rows, containers, volumes."""
        found = [str(path) for path in (self._mine.state / "w").glob("*")]
        with contextlib.closing(sqlite3.connect(self._mine.state / "registry.db")) as db:
            found += [f"row {row}" for row in db.execute("SELECT workspace_id, record FROM workspaces")]
        if self._engine is not None:
            service = json.loads((self._mine.state / "identity").read_text())["service_id"]
            label = f"agentic-isolation.service={service}"
            found += [str(each["Names"]) for each in containers(self._engine, label)]
            found += volumes(self._engine, label)
        return found


def _distinct(points: list[Failpoint]) -> list[Failpoint]:
    """Returns the points without those that are the same instant as another: a call begins with opening a channel."""
    found: list[Failpoint] = []
    for point in points:
        call = point.effect.replace("open.", "call.")
        begun = found[-1] if found else None
        if point.when == "before" and call != point.effect and begun and (begun.when, begun.effect) == ("before", call):
            continue
        found.append(point)
    return found


@pytest.mark.timeout(150)
@pytest.mark.parametrize(("kind", "name"), CASES)
async def test_killed_at_every_step(request: pytest.FixtureRequest, directory: Path, kind: str, name: str) -> None:
    engine = None if kind == "local" else request.getfixturevalue("engine")
    scenario = SCENARIOS[name]
    async with contextlib.AsyncExitStack() as stack:
        victims = []
        for number in range(AT_A_TIME):
            own = directory / str(number)
            if name == "claim":
                service = PoolingService(kind, own, "--log-level", "error", failing=True)
                mine: LastingService = await stack.enter_async_context(pooling(service))
            else:
                mine = await stack.enter_async_context(lasting(own, "--log-level", "error", failing=True))
            victims.append(Victim(mine, own, engine))
        points = await victims[0].record(scenario(kind))
        assert {point.when for point in points} == {"before", "after"}
        waiting = iter(points)

        async def crash_in_turn(victim: Victim) -> None:
            for point in waiting:
                try:
                    await victim.crash(scenario(kind), point)
                except BaseException as error:
                    error.add_note(f"killed {point}")
                    raise

        async with asyncio.TaskGroup() as group:
            for victim in victims:
                group.create_task(crash_in_turn(victim))
    print(f"{len(points)} points")
