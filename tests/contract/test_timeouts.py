"""A timeout takes the whole process tree, and gives back what was printed until then."""

from __future__ import annotations

import asyncio
import shlex

from agentic_isolation import Exited, Output, OutputSource, TerminationCause
from tests.support.jobs import (
    BLINDING,
    FUGITIVE,
    HEADLESS,
    IS_UNLOCKED,
    ORPHANED_FUGITIVES,
    PYTHON,
    TRACED,
    TRACER,
    TREE_SIZE,
    all_gone,
    count_alive,
    new_mark,
    python,
    running,
    tree,
)
from tests.support.ways import Workspace
from tests.turns import WAITS

pytestmark = WAITS

ENOUGH = 3.0
"""Seconds in which a tree has surely come up."""


async def test_command_that_takes_too_long(ws: Workspace) -> None:
    result = await ws.execute("echo before; echo error >&2; sleep 60; echo after", timeout=0.5)
    assert result.timed_out
    assert not result.success
    assert result.exit_code == 124
    assert (result.stdout, result.stderr) == ("before\n", "error\n")
    assert 500 <= result.duration_ms < 10_000
    assert result.termination is not None
    assert result.termination.cause is TerminationCause.TIMEOUT
    assert result.termination.survivors == 0


async def test_stream_of_a_command_that_takes_too_long(ws: Workspace) -> None:
    stream = ws.stream("echo one; printf two; sleep 60; echo three", timeout=0.5)
    assert [line async for line in stream] == ["one", "two"]
    assert stream.exit_code == 124
    assert stream.termination is not None
    assert (stream.termination.cause, stream.termination.survivors) == (TerminationCause.TIMEOUT, 0)


async def test_timeout_takes_the_whole_tree(ws: Workspace) -> None:
    """Daemons, sessions of their own, cleared environments, ignored signals: nothing gets away."""
    mark = new_mark()
    async with asyncio.TaskGroup() as group:
        run = group.create_task(ws.execute(tree(mark), timeout=ENOUGH))
        await running(ws, mark, TREE_SIZE)
    result = run.result()
    assert (result.timed_out, result.stdout, result.stderr) == (True, "ready\n", "to stderr\n")
    assert result.termination is not None
    assert result.termination.survivors == 0
    # The result itself says that the tree is empty: there is nothing to wait for.
    assert await count_alive(ws, mark) == 0


async def test_timeout_of_a_stream_takes_the_whole_tree(ws: Workspace) -> None:
    mark = new_mark()
    output = {OutputSource.STDOUT: b"", OutputSource.STDERR: b""}
    async for event in ws.stream(tree(mark), timeout=ENOUGH).events():
        if isinstance(event, Output):
            output[event.source] += event.data
        elif isinstance(event, Exited):
            assert (event.termination.cause, event.termination.survivors) == (TerminationCause.TIMEOUT, 0)
    assert output == {OutputSource.STDOUT: b"ready\n", OutputSource.STDERR: b"to stderr\n"}
    assert await count_alive(ws, mark) == 0


async def test_processes_that_fork_and_exit_for_ever_do_not_get_away(ws: Workspace) -> None:
    mark = new_mark()
    result = await ws.execute(python(FUGITIVE, mark), timeout=1)
    assert (result.timed_out, result.stdout) == (True, "ready\n")
    assert result.termination is not None
    assert result.termination.survivors == 0
    assert await count_alive(ws, mark) == 0


async def test_processes_whose_first_thread_has_ended_do_not_get_away(ws: Workspace) -> None:
    """Neither the command itself nor a child; the kernel describes both as it does what has ended."""
    code = shlex.quote(HEADLESS)
    result = await ws.execute(f"{PYTHON} -uc {code} child & exec {PYTHON} -uc {code} command", timeout=ENOUGH)
    assert (result.timed_out, result.stdout) == (True, "ready\nready\n")
    assert result.termination is not None
    assert result.termination.survivors == 0
    assert (await ws.execute(python(IS_UNLOCKED, "child", "command"))).stdout == "yes\nyes\n"


async def test_timeout_takes_the_tree_of_a_shim_that_cannot_look_for_it(ws: Workspace) -> None:
    result = await ws.execute(python(BLINDING, "daemon"), timeout=ENOUGH)
    assert (result.timed_out, result.stdout) == (True, "ready\n")
    assert result.termination is not None
    assert result.termination.survivors == 0
    assert (await ws.execute(python(IS_UNLOCKED, "daemon"))).stdout == "yes\n"


async def test_processes_that_fork_for_ever_are_not_said_to_be_gone(ws: Workspace) -> None:
    """Nor do they outlive their command, where it kills its shim to have them fall to the guest."""
    for number in range(3):
        result = await ws.execute(python(ORPHANED_FUGITIVES, f"lock{number}"), timeout=40)
        assert result.termination is not None
        if result.termination.survivors == 0:
            assert (await ws.execute(python(IS_UNLOCKED, f"lock{number}"))).stdout == "yes\n"


async def test_timeout_of_a_command_whose_end_another_one_keeps_to_itself(ws: Workspace) -> None:
    """It is traced, and a process that has ended is told to its tracer alone until that lets go of it."""
    async with await ws.start(python(TRACER)) as tracer:
        lines = tracer.lines()
        assert await anext(lines) == "ready"
        async with asyncio.TaskGroup() as group:
            run = group.create_task(ws.execute(python(TRACED), timeout=1))
            assert await anext(lines) == "traced"
        result = run.result()
        assert (result.timed_out, result.stdout) == (True, "ready\n")
        assert result.termination is not None
        assert (result.termination.signal, result.termination.survivors) == (9, 0)
        await tracer.kill()


async def test_timeout_takes_background_children_of_a_command_that_ignores_signals(ws: Workspace) -> None:
    mark = new_mark()
    result = await ws.execute(f"trap '' HUP INT TERM; sleep {mark} & sleep {mark}", timeout=0.5)
    assert result.timed_out
    assert await count_alive(ws, mark) == 0


async def test_timeout_of_a_stopped_process(ws: Workspace) -> None:
    result = await ws.execute("echo stopping; kill -STOP $$; echo never", timeout=0.5)
    assert (result.timed_out, result.stdout) == (True, "stopping\n")


async def test_timeout_of_a_command_that_prints_without_end(ws: Workspace) -> None:
    result = await ws.execute("yes", timeout=0.5, output_limit=1000)
    assert (result.timed_out, result.truncated) == (True, True)
    assert result.output[0].head == b"y\n" * 250
    assert result.output[0].total_bytes > 1000


async def test_timeout_of_a_command_that_is_fed(ws: Workspace) -> None:
    """It does not read: what it should read is still under way when its time is over."""
    result = await ws.execute("sleep 60", stdin=bytes(1 << 20), timeout=0.5)
    assert result.timed_out


async def test_other_commands_go_on(ws: Workspace) -> None:
    mark = new_mark()
    async with asyncio.TaskGroup() as group:
        other = group.create_task(ws.execute(f"echo $$ > pid; exec sleep {mark}", timeout=60))
        await running(ws, mark)
        assert (await ws.execute("sleep 60", timeout=0.2)).timed_out
        await running(ws, mark)
        await ws.execute("kill $(cat pid)")
    assert other.result().exit_code == 128 + 15


async def test_timeouts_that_are_not_reached_change_nothing(ws: Workspace) -> None:
    for timeout in (30, 86_400.0, 1e7, 1e9):
        result = await ws.execute("echo done", timeout=timeout)
        assert (result.exit_code, result.stdout, result.timed_out) == (0, "done\n", False), timeout
        assert [line async for line in ws.stream("echo done", timeout=timeout)] == ["done"], timeout


async def test_exit_code_124_is_no_timeout(ws: Workspace) -> None:
    result = await ws.execute("exit 124", timeout=30)
    assert (result.exit_code, result.timed_out) == (124, False)


async def test_workspace_works_after_many_timeouts(ws: Workspace) -> None:
    marks = [new_mark() for _ in range(16)]
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(ws.execute(f"sleep {mark} & sleep {mark}", timeout=0.3)) for mark in marks]
    assert all(run.result().timed_out for run in runs)
    await all_gone(ws, *marks)
    assert (await ws.execute("echo fine")).stdout == "fine\n"
