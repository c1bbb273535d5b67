"""Children that outlive their command: they delay its result by a bounded grace, and they live on."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from agentic_isolation import ProcessLimitError, SecurityConfig
from tests.support.eventually import eventually
from tests.support.jobs import count_alive, new_mark, python, running
from tests.support.ways import Way, Workspace

GRACE = 5.0
"""Seconds: many times what the result may be delayed by, on a machine that has other work."""

# A daemon by the book: it holds nothing of its parent's.
DAEMON = """
import os, sys
if os.fork():
    os.wait()
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
nothing = os.open(os.devnull, os.O_RDWR)
for descriptor in range(3):
    os.dup2(nothing, descriptor)
os.execvp("sleep", ["sleep", sys.argv[1]])
"""


async def test_child_that_keeps_stdout_open_does_not_hold_up_the_result(ws: Workspace) -> None:
    mark = new_mark()
    started = time.monotonic()
    result = await ws.execute(f"sleep {mark} & echo done")
    assert time.monotonic() - started < GRACE
    assert (result.exit_code, result.stdout) == (0, "done\n")
    assert result.termination is not None
    assert result.termination.survivors == 1
    await running(ws, mark)


async def test_child_that_keeps_stdout_open_does_not_hold_up_a_stream(ws: Workspace) -> None:
    mark = new_mark()
    started = time.monotonic()
    stream = ws.stream(f"sleep {mark} & sleep {mark} & echo done")
    assert [line async for line in stream] == ["done"]
    assert time.monotonic() - started < GRACE
    assert stream.termination is not None
    assert (stream.exit_code, stream.termination.survivors) == (0, 2)
    await running(ws, mark, 2)


@pytest.mark.places("runc")
async def test_child_that_outlives_its_command_keeps_its_place(way: Way) -> None:
    """So many commands run at a time as there may be processes; who is refused one hears that none of them need run."""
    async with way.open(way.config(security=SecurityConfig(use_gvisor=False, pids_limit=16))) as ws:
        for _ in range(16):
            result = await ws.execute("sleep 1000 >&- 2>&- &")
            assert result.termination is not None
            assert result.termination.survivors == 1
        with pytest.raises(ProcessLimitError, match="16 commands, or what they have left in the background"):
            await ws.execute("true")
        left = [process for process in await ws.processes() if process.processes]
        await ws.signal(left[0].id, signal.SIGKILL, tree=True)
        assert (await ws.execute("echo again")).stdout == "again\n"


async def test_daemon_lives_on(ws: Workspace) -> None:
    mark = new_mark()
    result = await ws.execute(python(DAEMON, mark))
    assert result.exit_code == 0
    assert result.termination is not None
    assert result.termination.survivors == 1
    await running(ws, mark)


async def test_all_that_the_command_wrote_is_there(ws: Workspace) -> None:
    """The child's hold on stdout must not cost a byte of what its parent wrote just before it ended."""
    code = "import os, sys; os.system(f'sleep {sys.argv[1]} &'); os.write(1, b'x' * 60000); os.write(2, b'y' * 60000)"
    result = await ws.execute(python(code, new_mark()))
    assert (result.stdout, result.stderr) == ("x" * 60000, "y" * 60000)


async def test_child_that_writes_after_the_result_is_not_killed_by_it(ws: Workspace) -> None:
    """What it writes goes nowhere, and it never gets SIGPIPE."""
    result = await ws.execute(
        "(while [ ! -e go ]; do sleep 0.01; done; seq 100000; echo survived > witness) & echo done"
    )
    assert result.stdout == "done\n"
    await ws.write_file("go", "")
    await eventually(lambda: ws.file_exists("witness"), "the child has gone on after its writing")


async def test_children_die_with_the_workspace(way: Way) -> None:
    mark = new_mark()
    async with way.open() as ws:
        await ws.execute(python(DAEMON, mark))
        await ws.execute(f"sleep {mark} & setsid sleep {mark} & echo done")
        await running(ws, mark, 3)
    async with way.open() as another:
        assert await count_alive(another, mark) == 0


@pytest.mark.parametrize("redirected", ["", ">/dev/null 2>&1"], ids=["held", "redirected"])
async def test_many_commands_with_children(ws: Workspace, redirected: str) -> None:
    mark = new_mark()
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(ws.execute(f"sleep {mark} {redirected} & echo {n}")) for n in range(16)]
    assert [run.result().stdout for run in runs] == [f"{n}\n" for n in range(16)]
    await running(ws, mark, 16)
