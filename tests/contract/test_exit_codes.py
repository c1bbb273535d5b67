"""How a command's end is told: exit codes, signals, and what success means."""

from __future__ import annotations

import asyncio
import signal

import pytest

from agentic_isolation import TerminationCause
from tests.support.ways import Workspace

# Those whose default action ends a process.
DEADLY = [
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGKILL,
    signal.SIGUSR1,
    signal.SIGSEGV,
    signal.SIGUSR2,
    signal.SIGPIPE,
    signal.SIGALRM,
    signal.SIGTERM,
    signal.SIGXCPU,
    signal.SIGSYS,
    signal.SIGRTMIN,
    signal.SIGRTMAX,
]


async def test_every_exit_code(ws: Workspace) -> None:
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(ws.execute(f"exit {code}")) for code in range(256)]
    results = [run.result() for run in runs]
    assert [result.exit_code for result in results] == list(range(256))
    assert [result.success for result in results] == [True] + [False] * 255
    for code, result in enumerate(results):
        assert result.termination is not None
        assert (result.termination.cause, result.termination.exit_code) == (TerminationCause.EXITED, code)
        assert result.termination.signal is None
        assert result.termination.survivors == 0
        assert not result.timed_out


async def test_every_deadly_signal(ws: Workspace) -> None:
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(ws.execute(f"kill -{int(number)} $$; sleep 60")) for number in DEADLY]
    for number, run in zip(DEADLY, runs, strict=True):
        result = run.result()
        assert result.exit_code == 128 + number
        assert not result.success
        assert not result.timed_out
        assert result.termination is not None
        assert (result.termination.cause, result.termination.signal) == (TerminationCause.SIGNALED, number)
        assert result.termination.exit_code is None


async def test_exit_code_above_128_is_no_signal(ws: Workspace) -> None:
    result = await ws.execute("exit 137")
    assert result.termination is not None
    assert (result.exit_code, result.termination.signal) == (137, None)


async def test_stream_tells_the_same(ws: Workspace) -> None:
    for command, code in (("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)):
        stream = ws.stream(command)
        before = stream.exit_code
        assert [line async for line in stream] == []
        assert (before, stream.exit_code) == (None, code)
        assert stream.termination is not None
        assert stream.termination.returncode == code


# gVisor's /proc does not tell; that none is ignored is seen there in `test_every_deadly_signal`.
@pytest.mark.places("local", "runc")
async def test_commands_start_with_default_signals(ws: Workspace) -> None:
    """What a supervisor ignores or blocks for itself must not reach what it starts: SIGPIPE ends `yes | head`."""
    result = await ws.execute(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])
    assert result.stdout.split() == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16]


async def test_result_says_how_long_and_how_much(ws: Workspace) -> None:
    result = await ws.execute("sleep 0.3; head -c 200000000 /dev/zero | cksum > /dev/null")
    assert result.termination is not None
    assert 300 <= result.duration_ms < 30_000
    assert result.duration_ms == result.termination.duration_ms
    assert 20 < result.termination.cpu_ms < result.duration_ms * 4
    assert 100_000 < result.termination.peak_memory_bytes < 1 << 30
    assert result.termination.started_at.tzinfo is not None
