"""The clients: processes that are killed and replaced, each with a seed of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos.findings import Findings, complaints

PATIENCE = 90.0
"""Seconds that a client has to finish when all is well again: as long as it may retry, and half as much again."""


@dataclass(slots=True)
class _Client:
    name: str
    process: asyncio.subprocess.Process
    errors: Path


class Clients:
    """Runs clients against a port of this machine.

    Args:
        count: How many at a time.
        seed: The run's.
        target: The address that they use.
        runtimes: What they ask for, one or the other.
        evidence: Holds their journals and what they complain of.
        environment: Of the processes.
        findings: Where to tell what went wrong.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int,
        target: str,
        runtimes: tuple[str, ...],
        evidence: Path,
        environment: Mapping[str, str],
        findings: Findings,
    ) -> None:
        self._seed = seed
        self._target = target
        self._runtimes = runtimes
        self._evidence = evidence
        self._environment = dict(environment)
        self._findings = findings
        self._running: list[_Client | None] = [None] * count
        self._lives = [0] * count
        self.killed: dict[str, float] = {}
        """When clients were killed, by their names."""

    async def __aenter__(self) -> Self:
        for index in range(len(self._running)):
            await self._start(index)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for client in self._running:
            if client is not None:
                with contextlib.suppress(ProcessLookupError):
                    client.process.kill()
                await client.process.wait()

    def __len__(self) -> int:
        return len(self._running)

    @property
    def journals(self) -> list[Path]:
        """The journals of all clients, dead ones too."""
        return sorted(self._evidence.glob("client-*.jsonl"))

    async def kill(self, index: int) -> str:
        """SIGKILLs a client and starts another one in its place; returns the name of the dead one."""
        client = self._running[index]
        assert client is not None
        self.killed[client.name] = asyncio.get_running_loop().time()
        with contextlib.suppress(ProcessLookupError):
            client.process.kill()
        await client.process.wait()
        await self._start(index)
        return client.name

    async def watch(self) -> None:
        """Tells of clients that end unasked, and starts others in their place. Never returns."""
        while True:
            for index, client in enumerate(self._running):
                if client is not None and client.process.returncode is not None and client.name not in self.killed:
                    self._tell_of_end(client)
                    self.killed[client.name] = asyncio.get_running_loop().time()
                    await self._start(index)
            await asyncio.sleep(0.5)

    async def finish(self) -> None:
        """Has all clients close their workspaces and end. Who does not within PATIENCE is killed."""
        await asyncio.gather(*(self._finish(client) for client in self._running if client is not None))

    async def _finish(self, client: _Client) -> None:
        with contextlib.suppress(ProcessLookupError):
            client.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(PATIENCE):
                await client.process.wait()
        except TimeoutError:
            # What it waited for is told by its journal, as operations without an answer.
            with contextlib.suppress(ProcessLookupError):
                client.process.kill()
            await client.process.wait()
        else:
            if client.process.returncode != 0 or complaints(client.errors):
                self._tell_of_end(client)

    def _tell_of_end(self, client: _Client) -> None:
        last = client.errors.read_text(errors="replace")[-2000:]
        self._findings.add("client", f"{client.name} ended with {client.process.returncode}: {last}")

    async def _start(self, index: int) -> None:
        self._lives[index] += 1
        name = f"client-{index}.{self._lives[index]}"
        errors = self._evidence / f"{name}.log"
        seed = f"{self._seed}/{name}"
        arguments = [name, seed, self._target, ",".join(self._runtimes), str(self._evidence / f"{name}.jsonl")]
        with errors.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.chaos.client", *arguments),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=output,
                env=self._environment,
                cwd="/",
            )
        self._running[index] = _Client(name, process, errors)
