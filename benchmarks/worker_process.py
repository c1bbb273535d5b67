"""Workers as the suite sees them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.roster import Entry
from benchmarks.scale import Scale

CHECKOUT = Path(__file__).parents[1]
_START_TIMEOUT = 120.0
_TURN_TIMEOUT = 180.0
_END_TIMEOUT = 60.0
_LONGEST_ANSWER = 16 << 20


class Missing(Exception):  # noqa: N818 - an answer, not a fault
    """The contender has no figures; the message says why."""


class WorkerProcess:
    """A contender in a process of its own, in a process group of its own: Ctrl-C reaches it through us.

    Args:
        process: Its process.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.service_pid: int | None = None

    @classmethod
    async def start(cls, entry: Entry, python: Path, log: Path) -> WorkerProcess:
        """Starts a contender's worker.

        Args:
            entry: The contender.
            python: The interpreter that has what it needs.
            log: File for its standard error.

        Raises:
            Missing: The contender does not run.
        """
        paths = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "service")])
        command = [str(python), "-m", "benchmarks.worker", entry.module, entry.factory, json.dumps(entry.arguments)]
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd="/",
                env={**os.environ, "PYTHONPATH": paths, **entry.environment},
                limit=_LONGEST_ANSWER,
                start_new_session=True,
            )
        worker = cls(process)
        try:
            worker.service_pid = (await worker._answer(_START_TIMEOUT))["service_pid"]
        except BaseException:
            await worker.aclose()
            raise
        return worker

    async def turn(self, measure: str, scale: Scale) -> Mapping[str, Sequence[float]]:
        """Has the contender take its turn and returns its samples by metric.

        Raises:
            Missing: There are none.
        """
        assert self._process.stdin is not None
        if self._process.returncode is not None:
            raise Missing("its worker has ended")
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(json.dumps({"measure": measure, "scale": asdict(scale)}).encode() + b"\n")
            await self._process.stdin.drain()
        samples: Mapping[str, Sequence[float]] = (await self._answer(_TURN_TIMEOUT))["samples"]
        return samples

    async def aclose(self) -> None:
        """Has it remove what it made, and ends it; goes on when cancelled."""
        ending = asyncio.ensure_future(self._end())
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                continue
        ending.result()

    async def _end(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _END_TIMEOUT)
        except TimeoutError:
            pass
        finally:
            # Its service too, where it could not end it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(ProcessLookupError):
                if self._process.returncode is None:
                    self._process.kill()
            await self._process.wait()

    async def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), seconds)
        except TimeoutError:
            await self.aclose()
            raise Missing(f"no answer within {seconds:g} s") from None
        if not line:
            raise Missing("its worker ended")
        answer: dict[str, Any] = json.loads(line)
        for why in ("failed", "unsupported"):
            if why in answer:
                raise Missing(f"{why}: {answer[why]}")
        return answer
