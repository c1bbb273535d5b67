"""References without a service and without isolation: a subprocess of this machine, and a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence

from benchmarks.contender import Contender, Place, checked


class Subprocess(Contender):
    """asyncio's own subprocesses."""

    async def create(self) -> Place:
        """Returns a place that is nothing but this machine."""
        return _SubprocessPlace()

    async def destroy(self, place: Place) -> None:
        """There is nothing to remove."""


class Pipe(Contender):
    """A pipe that is read with read(2): how fast output can be at all."""

    async def create(self) -> Place:
        """Returns a place that is nothing but this machine."""
        return _PipePlace()

    async def destroy(self, place: Place) -> None:
        """There is nothing to remove."""


class _SubprocessPlace(Place):
    python = sys.executable

    async def execute(self, command: Sequence[str]) -> None:
        await checked(*command)

    async def lines(self, command: Sequence[str]) -> AsyncGenerator[str, None]:
        async with _running(command) as output:
            async for line in output:
                yield line.decode().removesuffix("\n")

    async def bulk(self, command: Sequence[str]) -> int:
        size = 0
        async with _running(command) as output:
            while piece := await output.read(1 << 18):
                size += len(piece)
        return size


@contextlib.asynccontextmanager
async def _running(command: Sequence[str]) -> AsyncGenerator[asyncio.StreamReader, None]:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()


class _PipePlace(Place):
    async def bulk(self, command: Sequence[str]) -> int:
        return await asyncio.to_thread(_drained, command)


def _drained(command: Sequence[str]) -> int:
    size = 0
    buffer = bytearray(1 << 18)
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        while count := process.stdout.readinto(buffer):  # type: ignore[attr-defined]
            size += count
    return size
