"""What a workspace may use: it is held to it, the command that met a limit says so, and what it uses can be asked."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from agentic_isolation import (
    IsolationUnavailableError,
    ProcessLimitError,
    ResourceLimits,
    ResourceUsage,
    SecurityConfig,
    StartError,
    TerminationCause,
    WorkspaceLostError,
)
from tests.support.eventually import eventually
from tests.support.jobs import python
from tests.support.ways import Way, Workspace

MEBI = 1 << 20
HUNGRY = f"held = bytearray({1 << 30})"
FORKS = """
import os, time
for _ in range(5000):
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
"""


SMALL = ResourceLimits(memory="256M", disk="64M")


def cause(result: object) -> TerminationCause | None:
    termination = getattr(result, "termination", None)
    return None if termination is None else termination.cause


@pytest.mark.places("gvisor")
@pytest.mark.parametrize("limits", [ResourceLimits(memory="16M"), ResourceLimits(cpu=0.01)])
async def test_too_little_for_gvisors_own_kernel(way: Way, limits: ResourceLimits) -> None:
    """Is refused before anything is made, in place of a sandbox that does not come up."""
    with pytest.raises(IsolationUnavailableError, match="too little for gVisor") as refused:
        async with way.open(way.config(limits=limits)):
            pass
    assert str(refused.value.field).startswith("limits.")


@pytest.mark.places("gvisor")
async def test_what_is_enough_for_gvisors_own_kernel(way: Way) -> None:
    async with way.open(way.config(limits=ResourceLimits(memory="32M"))) as ws:
        assert (await ws.execute("echo enough")).stdout == "enough\n"


@pytest.mark.places("runc")
async def test_out_of_memory_is_told_of_the_command_that_took_it(way: Way) -> None:
    """Of itself, or of any child, however the command itself ended; and of no other that ran at the time."""
    async with way.open(way.config(limits=SMALL)) as ws:
        assert cause(await ws.execute(python(HUNGRY))) is TerminationCause.OUT_OF_MEMORY
        command = f"python3 -c '{HUNGRY}'; echo its code is $?"
        result = await ws.execute(command)
        assert (cause(result), result.stdout, result.exit_code) == (
            TerminationCause.OUT_OF_MEMORY,
            "its code is 137\n",
            0,
        )
        bystander = asyncio.create_task(ws.execute("while [ ! -e stop ]; do sleep 0.05; done; exit 3"))
        assert cause(await ws.execute(python(HUNGRY))) is TerminationCause.OUT_OF_MEMORY
        await ws.write_file("stop", "")
        assert cause(await bystander) is TerminationCause.EXITED
        assert cause(await ws.execute("exit 137")) is TerminationCause.EXITED


@pytest.mark.places("runc")
async def test_many_small_processes_that_use_up_memory_leave_the_workspace(way: Way) -> None:
    """Of which the guest is larger than each: the kernel takes the largest, where it is not told otherwise."""
    async with way.open(way.config(limits=ResourceLimits(memory="64M", disk="8M"))) as ws:
        result = await ws.execute("i=0; while [ $i -lt 600 ]; do sleep 3 & i=$((i+1)); done; wait")
        assert cause(result) is TerminationCause.OUT_OF_MEMORY
        assert (await ws.execute("echo on it goes")).stdout == "on it goes\n"


@pytest.mark.places("gvisor")
async def test_out_of_memory_under_gvisor_ends_the_workspace_and_says_why(way: Way) -> None:
    async with way.open(way.config(limits=SMALL)) as ws:
        with pytest.raises(WorkspaceLostError, match="out of memory"):
            async with asyncio.timeout(30):
                await ws.execute(python(HUNGRY))


async def is_lost(ws: Workspace, command: str = "true") -> bool:
    try:
        with contextlib.suppress(StartError, ProcessLimitError):
            await ws.execute(command)
    except WorkspaceLostError as lost:
        return "out of memory" in lost.message
    return False


@pytest.mark.places("runc", "gvisor")
async def test_files_are_refused_before_they_use_up_memory(way: Way) -> None:
    async with way.open(way.config(limits=ResourceLimits(memory="128M"))) as ws:
        assert ws.info.isolation.disk_bytes == 64 * MEBI
        result = await ws.execute("cat /dev/zero > filled")
        assert (cause(result), result.success) == (TerminationCause.EXITED, False)
        assert "No space left" in result.stderr
        assert (await ws.execute("rm filled; echo on it goes")).stdout == "on it goes\n"


@pytest.mark.places("runc")
async def test_files_that_use_up_memory_end_the_workspace_and_it_is_said_why(way: Way) -> None:
    """Killing a command frees nothing of them: in the end the guest is all that there is to kill."""
    async with way.open(way.config(limits=ResourceLimits(memory="64M", disk="1G"))) as ws:
        await eventually(lambda: is_lost(ws, "cat /dev/zero >> filled"), "the workspace is ended")


@pytest.mark.places("gvisor")
async def test_out_of_memory_under_gvisor_is_told_of_the_command_that_took_it(way: Way) -> None:
    """Little by little: gVisor's kernel says that the command has exited, before the engine says why."""
    async with way.open(way.config(limits=ResourceLimits(memory="128M", disk="64M"))) as ws:
        hungry = "held = []\nprint(len(held), flush=True)\nwhile True: held.append(bytearray(1 << 20))"
        with contextlib.suppress(WorkspaceLostError):
            result = await ws.execute(python(hungry))
            assert cause(result) is TerminationCause.OUT_OF_MEMORY
            assert result.stdout == "0\n"
            assert not result.success
        await eventually(lambda: is_lost(ws), "the workspace is ended")


@pytest.mark.places("gvisor")
async def test_large_command_that_fails_has_exited(way: Way) -> None:
    async with way.open(way.config(limits=ResourceLimits(memory="128M", disk="64M"))) as ws:
        large = f"held = bytearray(b'x') * {80 * MEBI}; raise SystemExit(1)"
        result = await ws.execute(python(large))
        assert (cause(result), result.exit_code) == (TerminationCause.EXITED, 1)


@pytest.mark.places("runc")
async def test_limit_of_processes_is_told(way: Way) -> None:
    limited = SecurityConfig(use_gvisor=False, pids_limit=16)
    async with way.open(way.config(security=limited)) as ws:
        result = await ws.execute(python(FORKS))
        assert not result.success
        assert cause(result) is TerminationCause.PIDS_LIMIT
        assert cause(await ws.execute("exit 3")) is TerminationCause.EXITED


@pytest.mark.places("runc", "gvisor")
async def test_limits_that_are_told_are_those_that_hold(way: Way) -> None:
    limits = ResourceLimits(cpu=0.5, memory="300M", disk="32M", open_files=777)
    async with way.open(way.config(limits=limits)) as ws:
        told = ws.info.isolation
        assert (told.cpu_millis, told.memory_bytes, told.disk_bytes) == (500, 300 * MEBI, 32 * MEBI)
        assert told.open_files == 777
        assert told.pids_limit is not None
        assert 256 <= told.pids_limit <= 1024
        assert (await ws.execute("ulimit -n")).stdout.strip() == "777"
        size = (await ws.execute("df -B1 --output=size . | tail -1")).stdout.strip()
        assert int(size) == told.disk_bytes


@pytest.mark.places("runc", "gvisor")
async def test_usage(ws: Workspace) -> None:
    before = (await ws.describe()).usage
    assert before is not None
    assert None not in (before.memory_bytes, before.cpu_seconds, before.pids, before.disk_bytes)
    await ws.write_file("file", bytes(8 * MEBI))
    holding = asyncio.create_task(ws.execute(python("end = sum(range(10**7)); import time; time.sleep(1e6)")))

    async def more() -> bool:
        now = (await ws.describe()).usage or ResourceUsage()
        return (
            (now.memory_bytes or 0) > (before.memory_bytes or 0) + MEBI
            and (now.cpu_seconds or 0) > (before.cpu_seconds or 0)
            and (now.pids or 0) > (before.pids or 0)
            and (now.disk_bytes or 0) >= (before.disk_bytes or 0) + 8 * MEBI
        )

    try:
        await eventually(more, "everything that it uses has grown")
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


@pytest.mark.places("local")
async def test_usage_of_a_directory_is_not_known(ws: Workspace) -> None:
    assert (await ws.describe()).usage in (None, ResourceUsage())
