"""Where the time goes: flame graphs of client and service by py-spy, and all processes, the guest's too, by perf."""

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
_SAMPLES_PER_SECOND = 400
_PATIENCE = 60.0
"""Seconds that a profiler may take for its report."""


async def profile(worker: WorkerProcess, measure: str, scale: Scale, directory: Path) -> Sequence[Path]:
    """Profiles a turn of a contender, made long enough, and returns the files that were written.

    Args:
        worker: The contender's worker; its service is profiled where it has one.
        measure: One whose turn takes as long as Scale.seconds says.
        scale: How much to measure, but for the time.
        directory: Where to write `client.svg`, `service.svg` and `machine.txt`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pids = {"client": worker.pid} | ({"service": worker.service_pid} if worker.service_pid else {})
    long = replace(scale, count=1 << 30, seconds=SECONDS + 2)
    async with _perf(directory / "machine.txt") as machine, _spies(pids, directory) as graphs:
        await worker.turn(measure, long)
    return [path for path in (*graphs, machine) if path.exists()]


@contextlib.asynccontextmanager
async def _spies(pids: Mapping[str, int], directory: Path) -> AsyncIterator[Sequence[Path]]:
    """Records flame graphs of processes meanwhile."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        print("py-spy is not installed: pip install 'agentic-isolation[bench]'", file=sys.stderr)
        yield []
        return
    graphs = {role: directory / f"{role}.svg" for role in pids}
    options = ["--duration", str(SECONDS), "--rate", str(_SAMPLES_PER_SECOND), "--native", "--function"]
    commands = [
        [program, "record", "--pid", str(pid), "--output", str(graphs[role]), *options] for role, pid in pids.items()
    ]
    async with _running(commands):
        yield list(graphs.values())


@contextlib.asynccontextmanager
async def _perf(report: Path) -> AsyncIterator[Path]:
    """Samples the whole machine meanwhile, kernel included, and reports by process, library and function."""
    program = shutil.which("perf")
    if program is None:
        yield report
        return
    data = report.with_suffix(".data")
    # cpu-clock: virtual machines have no counters of cycles.
    record = [program, "record", "--all-cpus", "--event", "cpu-clock", "--freq", str(_SAMPLES_PER_SECOND)]
    async with _running([[*record, "--output", str(data), "--", "sleep", str(SECONDS)]]):
        yield report
    sort = ["--stdio", "--sort", "comm,dso,symbol", "--percent-limit", "0.3"]
    process = await asyncio.create_subprocess_exec(
        program,
        "report",
        "--input",
        str(data),
        *sort,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    if process.returncode == 0:
        report.write_bytes(output)
    data.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def _running(commands: Sequence[Sequence[str]]) -> AsyncIterator[None]:
    """Runs programs meanwhile and waits for them at the end."""
    quiet = asyncio.subprocess.DEVNULL
    processes: list[asyncio.subprocess.Process] = []
    try:
        for command in commands:
            processes.append(await asyncio.create_subprocess_exec(*command, stdout=quiet))
        yield
        await asyncio.wait_for(asyncio.gather(*(process.wait() for process in processes)), _PATIENCE)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
