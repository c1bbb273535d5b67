"""Where the time goes: all processes, the guest's too, by perf; then flame graphs of client and service by py-spy."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.scale import Scale
from benchmarks.worker_process import WorkerProcess

SECONDS = 8
_SAMPLES_PER_SECOND = 200
_PATIENCE = 60.0
"""Seconds that a profiler may take for its report."""


async def profile(worker: WorkerProcess, measure: str, scale: Scale, directory: Path) -> Sequence[Path]:
    """Profiles turns of a contender, made long enough, and returns the files that were written.

    Args:
        worker: The contender's worker; its service is profiled where it has one.
        measure: One whose turn takes as long as Scale.seconds says.
        scale: How much to measure, but for the time.
        directory: Where to write `machine.txt`, `client.svg` and `service.svg`. It exists.
    """
    long = replace(scale, count=1 << 30, seconds=SECONDS + 2)
    machine = directory / "machine.txt"
    if perf := shutil.which("perf"):
        async with _recorded(perf, machine):
            await worker.turn(measure, long)
    pids = {"client": worker.pid} | ({"service": worker.service_pid} if worker.service_pid else {})
    graphs = {directory / f"{role}.svg": pid for role, pid in pids.items()}
    # Apart from perf, which would mostly see it.
    async with _running(_spies(graphs)):
        await worker.turn(measure, long)
    return [path for path in (machine, *graphs) if path.exists()]


def _spies(graphs: Mapping[Path, int]) -> list[list[str]]:
    """Returns the commands that record a flame graph of each process."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        print("There is no py-spy: pip install 'agentic-isolation[bench]'.", file=sys.stderr)
        return []
    options = ["--duration", str(SECONDS), "--rate", str(_SAMPLES_PER_SECOND), "--native", "--function"]
    return [[program, "record", "--pid", str(pid), "--output", str(path), *options] for path, pid in graphs.items()]


@contextlib.asynccontextmanager
async def _recorded(perf: str, report: Path) -> AsyncIterator[None]:
    """Samples the whole machine meanwhile, kernel included, and reports by process, library and function."""
    data = report.with_suffix(".data")
    # cpu-clock: virtual machines have no counters of cycles.
    record = [perf, "record", "--quiet", "--all-cpus", "--event", "cpu-clock", "--freq", str(_SAMPLES_PER_SECOND)]
    async with _running([[*record, "--output", str(data), "--", "sleep", str(SECONDS)]]):
        yield
    columns = ["--stdio", "--fields", "overhead,comm,dso,symbol", "--percent-limit", "0.2"]
    quiet = asyncio.subprocess.DEVNULL
    with report.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            perf, "report", "--input", str(data), *columns, stdout=output, stderr=quiet
        )
        await process.wait()
    data.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def _running(commands: Sequence[Sequence[str]]) -> AsyncIterator[None]:
    """Runs programs meanwhile, and waits for them at the end."""
    processes: list[asyncio.subprocess.Process] = []
    try:
        for command in commands:
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
            processes.append(process)
        yield
        await asyncio.wait_for(asyncio.gather(*(process.wait() for process in processes)), _PATIENCE)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
