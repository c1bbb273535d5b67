"""Processes that are interacted with: input, terminals, several attachments, letting go."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from agentic_isolation import (
    ClosedError,
    Exited,
    Gap,
    InputTakenError,
    InvalidArgumentError,
    NoTerminalError,
    Output,
    Process,
    ProcessNotFoundError,
    ProgramNotFoundError,
    TerminalSize,
    TerminationCause,
)
from tests.support.jobs import count_alive, new_mark, python, running
from tests.support.ways import Way, Workspace

SIZE = TerminalSize(100, 30)
# Tells each size that its terminal gets.
SIZES = """
import os, signal
def tell(*_):
    size = os.get_terminal_size()
    print(size.columns, size.lines)
signal.signal(signal.SIGWINCH, tell)
tell()
while True:
    signal.pause()
"""


async def output_until(process: Process, text: bytes) -> bytes:
    """Reads a process until it has printed something, and returns all that it has."""
    printed = b""
    async for event in process:
        assert isinstance(event, Output), event
        printed += event.data
        if text in printed:
            return printed
    raise AssertionError(f"it has ended and printed only {printed!r}")


async def test_input_comes_out_as_it_went_in(ws: Workspace) -> None:
    content = bytes(range(256)) * 8192  # 2 MiB, more than is ever under way
    async with await ws.start(["cat"]) as process:
        written = asyncio.create_task(write_all(process, content))
        received = b"".join([event.data async for event in process if isinstance(event, Output)])
        await written
        assert hashlib.sha256(received).digest() == hashlib.sha256(content).digest()
        assert (process.exit_code, process.offset) == (0, len(content))
        with pytest.raises(ClosedError):
            await process.write("more")


async def write_all(process: Process, content: bytes) -> None:
    await process.write(content)
    await process.send_eof()


async def test_talking_line_by_line(ws: Workspace) -> None:
    async with await ws.start("while read line; do echo got $line; done; echo end >&2; exit 3") as process:
        for word in ("one", "two"):
            await process.write(f"{word}\n")
            assert await anext(aiter(process.lines())) == f"got {word}"
        await process.send_eof()
        await process.send_eof()
        assert [event.data async for event in process if isinstance(event, Output)] == [b"end\n"]
        assert (await process.wait()).exit_code == 3


async def test_terminal_and_its_size(ws: Workspace) -> None:
    async with await ws.start(python(SIZES), terminal=SIZE, env={"PYTHONUNBUFFERED": "1"}) as process:
        lines = process.lines()
        assert await anext(lines) == "100 30"
        await process.resize(81, 25)
        assert await anext(lines) == "81 25"
    script = "tty -s && echo terminal; echo $TERM; stty size; cat; echo done"
    async with await ws.start(script, terminal=SIZE) as process:
        assert (await output_until(process, b"30 100")).splitlines()[:2] == [b"terminal", b"xterm-256color"]
        await process.write("typed\n")
        assert b"typed\r\ntyped\r\n" in await output_until(process, b"typed\r\ntyped\r\n")
        await process.send_eof()
        assert b"done" in await output_until(process, b"done")
        assert (await process.wait()).exit_code == 0


async def test_a_resize_that_cannot_be_changes_nothing(ws: Workspace) -> None:
    for terminal in (SIZE, None):
        async with await ws.start("read line; echo got $line", terminal=terminal) as process:
            for size in ((0, 0), (0, 24), (80, 65_536), (-1, 24)):
                with pytest.raises(InvalidArgumentError, match=r"resize\.(columns|rows)"):
                    await process.resize(*size)
            if terminal is None:
                with pytest.raises(NoTerminalError):
                    await process.resize(80, 24)
            await process.write("it\n")
            assert b"got it" in await output_until(process, b"got it")
            assert (await process.wait()).exit_code == 0


async def test_interrupting_from_the_terminal_and_by_a_signal(ws: Workspace) -> None:
    for typed in (True, False):
        mark = new_mark()
        async with await ws.start(f"echo ready; exec sleep {mark}", terminal=SIZE) as process:
            await output_until(process, b"ready")
            await running(ws, mark)
            await (process.write(b"\x03") if typed else process.signal(2))
            termination = await process.wait()
            assert (termination.signal, termination.cause) == (2, TerminationCause.SIGNALED)
    async with await ws.start("trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.05; done") as process:
        await output_until(process, b"ready")
        await process.signal(10)
        await output_until(process, b"caught")
        assert (await process.wait()).exit_code == 5


async def test_process_that_two_close_is_closed_for_both(way: Way, ws: Workspace) -> None:
    """Such as who leaves it while somebody else has had enough of it."""
    mark = new_mark()
    async with await ws.start(f"exec sleep {mark}") as process:
        await running(ws, mark, 1)
        closing = asyncio.create_task(process.aclose())
        await asyncio.sleep(0)
    assert way.alive(ws.id, mark) == 0
    await closing


async def test_leaving_kills_and_detaching_does_not(ws: Workspace) -> None:
    mark, kept = new_mark(), new_mark()
    async with await ws.start(f"sleep {mark} & exec sleep {mark}"):
        await running(ws, mark, 2)
    assert await count_alive(ws, mark) == 0
    async with await ws.start(f"echo first; read line; echo $line; exec sleep {kept}") as process:
        await output_until(process, b"first\n")
        await process.detach()
        with pytest.raises(ClosedError):
            await process.write("too late")
        with pytest.raises(ClosedError):
            await anext(process)
    async with await ws.attach(process.id, offset=process.offset) as again:
        await again.write("second\n")
        assert await output_until(again, b"second\n") == b"second\n"
    assert await count_alive(ws, kept) == 1  # it was not started through this attachment
    await ws.signal(process.id, 9, tree=True)
    assert (await ws.wait(process.id)).cause is TerminationCause.KILLED
    assert await count_alive(ws, kept) == 0


async def test_one_writer_and_others_that_read(ws: Workspace) -> None:
    async with await ws.start(["cat"]) as first:
        with pytest.raises(InputTakenError, match=r"another attachment .* take_input"):
            await ws.attach(first.id)
        async with await ws.attach(first.id, read_only=True) as reader:
            await first.write("one ")
            assert await output_until(reader, b"one ") == b"one "
            with pytest.raises(InvalidArgumentError, match="read_only"):
                await reader.write("no")
        async with await ws.attach(first.id, take_input=True) as second:
            await second.write("two")
            assert await output_until(second, b"two") == b"one two"
            with pytest.raises(InputTakenError):
                await output_until(first, b"never")
            await second.send_eof()
            assert (await second.wait()).exit_code == 0


async def test_a_reader_that_stops_does_not_slow_the_others(ws: Workspace) -> None:
    total = 4 << 20
    code = f"import sys; [sys.stdout.write('x' * 1023 + chr(10)) for _ in range({total >> 10})]"
    process = await ws.start(["sh", "-c", 'read go; exec "$@"', "sh", *python(code)])
    readers = [await ws.attach(process.id, read_only=True) for _ in range(9)]
    stopped = await ws.attach(process.id, read_only=True)
    try:
        counts = [asyncio.create_task(read_to_the_end(reader)) for reader in (process, *readers)]
        await process.write("go\n")
        assert await asyncio.gather(*counts) == [total] * 10
        assert await read_to_the_end(stopped) == total
    finally:
        await asyncio.gather(*(each.aclose() for each in (process, *readers, stopped)))


async def read_to_the_end(process: Process) -> int:
    """Returns how many bytes were read or missed until the process had ended well."""
    count = 0
    async for event in process:
        match event:
            case Output():
                count += len(event.data)
            case Gap():
                count += event.lost_bytes
            case Exited():
                assert event.termination.exit_code == 0
    return count


MANY_LINES = 200_000
"""More than is ever kept of what nobody reads."""


async def count_lines(process: Process, pause_every: int = MANY_LINES) -> int:
    """Counts lines, and has something else to do now and then."""
    count = 0
    async for _ in process.lines():
        count += 1
        if count % pause_every == 0:
            await asyncio.sleep(0.01)
    return count


async def test_waiting_takes_nothing_from_who_reads(ws: Workspace) -> None:
    for pause in (MANY_LINES, 5_000):
        async with await ws.start(f"seq {MANY_LINES}") as process:
            counting = asyncio.create_task(count_lines(process, pause))
            assert (await process.wait()).exit_code == 0
            assert await counting == MANY_LINES
    async with await ws.start("for i in 1 2 3; do read line; echo $line; done") as process:
        waiting = asyncio.create_task(process.wait())
        events = aiter(process)
        for word in (b"one\n", b"two\n", b"three\n"):
            await process.write(word)
            event = await anext(events)
            assert isinstance(event, Output)
            assert event.data == word
            await asyncio.sleep(0.05)
        assert (await waiting).exit_code == 0
        assert isinstance(await anext(events), Exited)


async def test_waiting_takes_what_nobody_reads_any_more(ws: Workspace) -> None:
    async with await ws.start(f"echo begun; seq {MANY_LINES}; echo end >&2") as process:
        lines = process.lines()
        assert await anext(lines) == "begun"
        async with asyncio.timeout(8):  # less than is borne with an iteration that somebody else might go on with
            assert (await process.wait()).exit_code == 0
    async with await ws.start(f"read go; seq {MANY_LINES}") as process:
        waiting = asyncio.create_task(process.wait())
        await process.write("go\n")
        async for _ in process.lines():
            break
        async with asyncio.timeout(8):
            assert (await waiting).exit_code == 0


async def test_what_makes_no_sense_is_refused(ws: Workspace) -> None:
    with pytest.raises(ProgramNotFoundError):
        await ws.start(["no-such-program"])
    for size in (TerminalSize(0, 24), TerminalSize(80, 65536), TerminalSize(-1, 24)):
        with pytest.raises(InvalidArgumentError, match=r"terminal\.(columns|rows)"):
            await ws.start("true", terminal=size)
    with pytest.raises(ProcessNotFoundError):
        await ws.attach("p-unknown")
    with pytest.raises(ProcessNotFoundError):
        await ws.wait("p-unknown")
    with pytest.raises(InvalidArgumentError):
        await ws.attach("")
    stream = ws.stream("echo here; sleep 60")
    assert await anext(stream) == "here"
    (running_one,) = [process for process in await ws.processes() if process.running]
    with pytest.raises(InvalidArgumentError, match="read_only"):
        await ws.attach(running_one.id)
    await stream.aclose()
