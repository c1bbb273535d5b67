"""The service as a process that is killed, stopped and replaced, always at the same address and directory."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.chaos.findings import Findings
from tests.support.replica import free_port

_T = TypeVar("_T")
_START_TIMEOUT = 30.0
_GRACE = 5
"""Seconds that calls have when the service stops."""
_END_TIMEOUT = 25.0
"""Seconds within which a service that was told to stop has ended: its grace, and what it winds up after that."""
_STEP = 0.25
"""Seconds. A machine that stands still for longer is charged no more than this."""
_ROLL_OVERLAP = 1.5
"""Seconds after which a second service waits for its turn."""


class Service:
    """Runs the service, one process after the other.

    Args:
        directory: Holds the state directory.
        evidence: Holds the logs.
        runtimes: What places are kept ready of, as RUNTIMES.
        environment: Of the processes.
        findings: Where to tell what went wrong.
        chance: Where chance comes from.
    """

    def __init__(
        self,
        directory: Path,
        evidence: Path,
        runtimes: Sequence[str],
        environment: Mapping[str, str],
        findings: Findings,
        chance: random.Random,
    ) -> None:
        self.port = free_port()
        self.state_dir = directory / "state"
        self._config = directory / "config.toml"
        self._config.write_text("\n".join(_pool(runtime) for runtime in runtimes))
        self._evidence = evidence
        self._environment = dict(environment)
        self._findings = findings
        self._chance = chance
        self._count = 0
        self._running: _Process | None = None
        self._stopping = False

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        if self._running is not None:
            await self._running.kill()

    async def watch(self) -> None:
        """Tells of processes that end unasked, and starts others in their place. Never returns."""
        while True:
            process = self._running
            assert process is not None
            await process.ended()
            if self._running is process and not process.doomed and not self._stopping:
                self._findings.add("service", f"{process.name} ended by itself with {process.exit_code}")
                await self._start()
            await asyncio.sleep(0.1)

    async def kill(self) -> str:
        """SIGKILLs it and starts another one; sometimes kills that as well, while it starts."""
        again = self._chance.random() < 0.3
        downtime = self._chance.choice([0.0, self._chance.uniform(0, 3)])
        await self._current().kill()
        await asyncio.sleep(downtime)
        if again:
            infant = await self._spawn()
            await asyncio.sleep(self._chance.uniform(0, 1.5))
            await infant.kill()
        await self._start()
        return f"down for {downtime:.1f} s" + (", the next one killed too while it started" if again else "")

    async def drain(self) -> str:
        """SIGTERMs it, waits until it has ended, and starts another one."""
        downtime = self._chance.choice([0.0, self._chance.uniform(0, 3)])
        seconds = await self._end(self._current())
        await asyncio.sleep(downtime)
        await self._start()
        return f"ended after {seconds:.1f} s, away for {downtime:.1f} s more"

    async def roll(self) -> str:
        """Starts another one, which waits for the state directory, then SIGTERMs the first."""
        first, second = self._current(), await self._spawn()
        await asyncio.sleep(_ROLL_OVERLAP)
        seconds = await self._end(first)
        await self._follow(second)
        return f"the first ended after {seconds:.1f} s"

    async def forsake_pools(self) -> None:
        """Replaces it by one that keeps nothing ready, and removes what was."""
        self._config.write_text("")
        await self.drain()

    async def stop(self) -> None:
        """Ends it for good."""
        self._stopping = True
        await self._end(self._current())

    def _current(self) -> _Process:
        assert self._running is not None
        return self._running

    async def _end(self, process: _Process) -> float:
        """SIGTERMs a process and returns the seconds it took to end."""
        began = asyncio.get_running_loop().time()
        process.terminate()
        if not await process.has_ended(within=_END_TIMEOUT):
            self._findings.add("service", f"{process.name} has not ended {_END_TIMEOUT:g} s after SIGTERM")
            await process.kill()
        elif process.exit_code != 0:
            self._findings.add("service", f"{process.name} ended with {process.exit_code} after SIGTERM")
        return asyncio.get_running_loop().time() - began

    async def _start(self) -> None:
        await self._follow(await self._spawn())

    async def _follow(self, process: _Process) -> None:
        """Makes a process the current one when it listens; others take its place where it does not."""
        while True:
            if await process.is_listening(within=_START_TIMEOUT):
                self._running = process
                return
            self._findings.add("service", f"{process.name} does not listen; exit code {process.exit_code}")
            await process.kill()
            await asyncio.sleep(0.5)
            process = await self._spawn()

    async def _spawn(self) -> _Process:
        self._count += 1
        log = self._evidence / f"service-{self._count:03d}.log"
        # Every other one may not enter namespaces, and has bridges to all guests.
        capabilities = ["--bounding-set=-sys_admin"] if self._count % 2 else []
        command = [
            *("setpriv", "--pdeathsig", "KILL", *capabilities),
            *(sys.executable, "-m", "agentic_isolation_service", "serve"),
            *("--address", f"127.0.0.1:{self.port}", "--state-dir", str(self.state_dir), "--grace", str(_GRACE)),
            *("--config", str(self._config)),
        ]
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=output, env=self._environment, cwd="/"
            )
        return _Process(process, f"service {self._count} (pid {process.pid}, {log.name})")


class _Process:
    """One process of the service."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self.name = name
        self.doomed = False

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    async def is_listening(self, *, within: float) -> bool:
        """Waits until it says that it listens; False when it ends before, or does not within so many seconds."""
        assert self._process.stdout is not None
        line = await _in_time(self._process.stdout.readline, within)
        return line is not None and line.startswith(b"listening on ")

    async def ended(self) -> None:
        await self._process.wait()

    async def has_ended(self, *, within: float) -> bool:
        """Waits for its end, and returns whether it came within so many seconds."""
        return await _in_time(self._process.wait, within) is not None

    def terminate(self) -> None:
        self.doomed = True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    async def kill(self) -> None:
        self.doomed = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


async def _in_time(wait: Callable[[], Awaitable[_T]], seconds: float) -> _T | None:
    """Returns what is waited for, which may be waited for again and again; None when it does not come in time."""
    for _ in range(round(seconds / _STEP)):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STEP):
                return await wait()
    return None


def _pool(runtime: str) -> str:
    """Returns the configuration of a pool that chaos's clients get workspaces from."""
    return f"""[[pool]]
name = "{runtime}"
min = 1
max = 2
security = {{ use_gvisor = {str(runtime == "runsc").lower()} }}
limits = {{ memory = "256M", cpu = 1, disk = "64M" }}
"""
