"""A client under chaos: uses one workspace after the other, two at a time, and writes all of it into its journal.

`python -m tests.chaos.client NAME SEED TARGET RUNTIMES JOURNAL`. SIGTERM has it finish what it does, close its
workspaces and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from pathlib import Path

from agentic_isolation import AgenticWorkspace, ResourceLimits, SecurityConfig
from tests.chaos.jobs import Job
from tests.chaos.journal import Journal
from tests.chaos.mix import Mix
from tests.chaos.operations import Answer, GoneError, Recorder, WorkspaceDeeds
from tests.chaos.settings import LEASE

_AT_A_TIME = 2
_LIMITS = ResourceLimits(memory="256M", cpu=1, disk="64M")
_ROUNDS = (4, 16)
"""Operations, or pairs of them, per workspace."""
_PAUSE = 0.6
"""Seconds between two operations, at most."""


class Client:
    """Makes load until it is told to stop."""

    def __init__(self, recorder: Recorder, seed: str, target: str, runtimes: list[str]) -> None:
        self._recorder = recorder
        self._seed = seed
        self._target = target
        self._runtimes = runtimes
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Works until SIGTERM."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        async with asyncio.TaskGroup() as workers:
            for number in range(_AT_A_TIME):
                workers.create_task(self._work(random.Random(f"{self._seed}/{number}")))

    async def _work(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            await self._pause(chance.uniform(0, 2))
            with contextlib.suppress(GoneError):
                await self._use_a_workspace(chance)

    async def _use_a_workspace(self, chance: random.Random) -> None:
        runtime = chance.choice(self._runtimes)
        workspace = AgenticWorkspace.create(
            security=SecurityConfig(use_gvisor=runtime == "runsc"), limits=_LIMITS, lease=LEASE, target=self._target
        )

        async def make() -> Answer:
            await workspace
            return {"workspace": workspace.id, "runtime": workspace.info.isolation.runtime}

        if await self._recorder.carry_out("create", make, runtime=runtime) is None:
            return
        deeds = WorkspaceDeeds(self._recorder, workspace, runtime)
        try:
            await self._do_some(deeds, chance)
            await deeds.read_log()
        finally:
            await deeds.destroy()

    async def _do_some(self, deeds: WorkspaceDeeds, chance: random.Random) -> None:
        mix = Mix(deeds, chance)
        await deeds.execute(Job(token=deeds.next_token(), stdout_lines=1))
        for _ in range(chance.randint(*_ROUNDS)):
            if self._stop.is_set():
                return
            at_a_time = chance.choices([1, 2], [4, 1])[0]
            outcomes = await asyncio.gather(*(mix.draw()() for _ in range(at_a_time)), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            await self._pause(chance.uniform(0, _PAUSE))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()


async def main(name: str, seed: str, target: str, runtimes: str, journal: str) -> None:
    with Journal(Path(journal)) as written:
        await Client(Recorder(name, written), seed, target, runtimes.split(",")).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
