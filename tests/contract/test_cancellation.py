"""Nobody waits any more: the command's whole tree is killed, and the workspace goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from agentic_isolation import ClosedError
from tests.support.clients import ClientProgram
from tests.support.eventually import eventually
from tests.support.jobs import TREE_SIZE, all_gone, count_alive, new_mark, running, tree
from tests.support.ways import Way, Workspace
from tests.turns import WAITS

pytestmark = WAITS
LEASE = 4
"""Seconds of a workspace whose client is killed: enough for it to be made on a busy machine."""


async def test_cancelled_execute_kills_the_tree(ws: Workspace) -> None:
    mark = new_mark()
    run = asyncio.create_task(ws.execute(tree(mark)))
    await running(ws, mark, TREE_SIZE)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await all_gone(ws, mark)
    assert (await ws.execute("echo fine")).stdout == "fine\n"


async def test_execute_that_is_waited_for_no_longer_is_killed(ws: Workspace) -> None:
    mark = new_mark()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await ws.execute(f"sleep {mark} & sleep {mark}")
    await all_gone(ws, mark)


async def test_cancelled_stream_kills_the_tree(ws: Workspace) -> None:
    mark = new_mark()
    lines: asyncio.Queue[str] = asyncio.Queue()

    async def read() -> None:
        async for line in ws.stream(tree(mark)):
            lines.put_nowait(line)

    reading = asyncio.create_task(read())
    assert await lines.get() == "ready"
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await all_gone(ws, mark)
    assert lines.empty()


@pytest.mark.parametrize("often", [False, True])
async def test_cancellation_says_what_it_has_said(ws: Workspace, *, often: bool) -> None:
    """By that anyio, which cancels until there is an end, knows its own; any other leaves the scope it was for."""
    mark = new_mark()
    line = f"sleep {mark}"
    background = await ws.start(line, detached=True)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "execute": lambda: ws.execute(line),
        "stream": lambda: anext(ws.stream(line)),
        "events": lambda: _exit_of(ws.stream(line).events()),
        "process": lambda: _end_of(ws, line),
        "wait": lambda: ws.wait(background.id),
        "watch": lambda: _change_in(ws),
    }
    for name, call in calls.items():
        waiting = asyncio.ensure_future(call())
        await asyncio.sleep(0.2)
        waiting.cancel(name)
        while often and not waiting.done():
            await asyncio.sleep(0)
            waiting.cancel(name)
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await waiting
        assert cancelled.value.args == (name,)
    await background.kill()
    await all_gone(ws, mark)


async def _exit_of(events: AsyncIterator[object]) -> None:
    async for _ in events:
        pass


async def _end_of(ws: Workspace, line: str) -> None:
    async with await ws.start(line) as process:
        await process.wait()


async def _change_in(ws: Workspace) -> None:
    async with ws.files.watch(".") as changes:
        await anext(changes)


async def test_stream_that_somebody_else_closes_kills_the_tree(ws: Workspace) -> None:
    mark = new_mark()
    for by_events in (False, True):
        stream = ws.stream(tree(mark))
        items = stream.events() if by_events else stream
        begun = asyncio.Event()

        async def read(items: AsyncIterator[object] = items, begun: asyncio.Event = begun) -> None:
            async for _ in items:
                begun.set()

        reading = asyncio.create_task(read())
        await begun.wait()
        await running(ws, mark, TREE_SIZE)
        await stream.aclose()
        await all_gone(ws, mark)
        with pytest.raises(ClosedError):
            await reading
        assert reading.cancelling() == 0
        await stream.aclose()
        with pytest.raises(ClosedError):
            stream.events()


async def test_stream_that_is_left_by_break_kills_the_tree(ws: Workspace) -> None:
    mark = new_mark()
    async for line in ws.stream(tree(mark)):
        assert line == "ready"
        break
    await all_gone(ws, mark)


async def test_events_that_are_left_by_break_kill_the_tree(ws: Workspace) -> None:
    mark = new_mark()
    async for _ in ws.stream(tree(mark)).events():
        break
    await all_gone(ws, mark)


async def test_stream_that_is_left_by_an_exception_kills_the_tree(ws: Workspace) -> None:
    mark = new_mark()

    async def fail_at_the_first_line() -> None:
        async for line in ws.stream(tree(mark)):
            raise ZeroDivisionError(line)

    with pytest.raises(ZeroDivisionError):
        await fail_at_the_first_line()
    await all_gone(ws, mark)


async def test_closed_stream_kills_the_tree(ws: Workspace) -> None:
    mark = new_mark()
    async with ws.stream(tree(mark)) as stream:
        assert await anext(stream) == "ready"
        await running(ws, mark, TREE_SIZE)
    await all_gone(ws, mark)
    await stream.aclose()
    assert stream.termination is None
    with pytest.raises((ClosedError, StopAsyncIteration)):
        await anext(stream)


async def test_stream_that_two_close_is_closed_for_both(ws: Workspace) -> None:
    """Such as who leaves it while somebody else has had enough of it."""
    mark = new_mark()
    async with ws.stream(tree(mark)) as stream:
        assert await anext(stream) == "ready"
        await running(ws, mark, TREE_SIZE)
        closing = asyncio.create_task(stream.aclose())
        await asyncio.sleep(0)
    await all_gone(ws, mark)
    await closing


async def test_stream_that_is_never_read_starts_nothing(ws: Workspace) -> None:
    mark = new_mark()
    async with ws.stream(tree(mark)) as stream:
        pass
    await ws.stream(tree(mark)).aclose()
    assert await count_alive(ws, mark) == 0
    with pytest.raises(ClosedError):
        await anext(stream)


async def test_stream_is_read_once(ws: Workspace) -> None:
    stream = ws.stream("echo once")
    assert [line async for line in stream] == ["once"]
    assert [line async for line in stream] == []
    with pytest.raises(ClosedError):
        stream.events()


async def test_cancelling_at_any_moment_leaves_nothing(ws: Workspace) -> None:
    """Before it is sent, while it starts, while it runs: wherever the cancellation falls."""
    mark = new_mark()
    for steps in range(60):
        run = asyncio.create_task(ws.execute(["sleep", mark]))
        for _ in range(steps):
            await asyncio.sleep(0)
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
    await all_gone(ws, mark)


@pytest.mark.parametrize("often", [False, True])
async def test_cancelling_a_start_at_any_moment_leaves_nothing(ws: Workspace, *, often: bool) -> None:
    mark = new_mark()
    for steps in range(60):
        run = asyncio.create_task(_end_of(ws, f"sleep {mark}"))
        for _ in range(steps):
            await asyncio.sleep(0)
        run.cancel()
        while often and not run.done():
            await asyncio.sleep(0)
            run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
    await all_gone(ws, mark)


async def test_many_cancelled_at_once(ws: Workspace) -> None:
    mark = new_mark()
    runs = [asyncio.create_task(ws.execute(["sleep", mark])) for _ in range(32)]
    await running(ws, mark, 32)
    for run in runs:
        run.cancel()
    await asyncio.gather(*runs, return_exceptions=True)
    await all_gone(ws, mark)
    assert (await ws.execute("echo fine")).stdout == "fine\n"


@pytest.mark.parametrize("mode", ["execute", "stream"])
async def test_killed_client_program_takes_its_commands_along(way: Way, mode: str) -> None:
    """SIGKILL: nothing in the client can tell anyone. Its workspace follows when the lease ends."""
    mark = new_mark()
    with ClientProgram(way, mode=mode, mark=mark, lease=LEASE) as client:
        assert way.alive(client.workspace_id, mark) >= TREE_SIZE
        client.kill()
        await eventually(lambda: not way.alive(client.workspace_id, mark), "the client's commands are gone", within=10)


async def test_killed_client_program_leaves_no_workspace_after_its_lease(way: Way) -> None:
    """Not even one in which only a child in the background is left. The fixtures look for its directory."""
    mark = new_mark()
    with ClientProgram(way, mode="idle", mark=mark, lease=LEASE) as client:
        client.kill()
        await eventually(lambda: not way.alive(client.workspace_id, mark), "the workspace is gone", within=15)
