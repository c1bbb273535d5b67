"""Streams over the wire: events and offsets, lines, keepalives, resuming, several readers."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import grpc
import grpc.aio

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.counting import LINES, count, counted
from tests.integration.wire import EventReader, Stub, call, host_file, refused, resume, seconds, shell, start
from tests.support.eventually import eventually
from tests.support.jobs import python

STDOUT, STDERR = pb.OUTPUT_SOURCE_STDOUT, pb.OUTPUT_SOURCE_STDERR


async def test_events_in_order(stub: Stub, workspace: pb.Workspace) -> None:
    line = "echo one; sleep 0.1; echo two >&2; sleep 0.1; printf three; exit 7"
    before = datetime.now(UTC)
    async with EventReader(stub, start(workspace, shell(line))) as events:
        termination = await events.to_end()
    assert [(output.source, output.data) for output in events.outputs] == [
        (STDOUT, b"one\n"),
        (STDERR, b"two\n"),
        (STDOUT, b"three"),
    ]
    assert [output.offset for output in events.outputs] == [0, 4, 8]
    assert (termination.exit_code, termination.cause) == (7, pb.TERMINATION_CAUSE_EXITED)
    assert termination.WhichOneof("status") == "exit_code"
    assert termination.survivors == 0
    assert 0.2 <= termination.duration.ToTimedelta().total_seconds() <= (datetime.now(UTC) - before).total_seconds()
    assert before <= termination.start_time.ToDatetime(UTC) <= datetime.now(UTC)


async def test_offsets_count_both_sources_in_one_sequence(stub: Stub, workspace: pb.Workspace) -> None:
    async with EventReader(stub, start(workspace, count(100_000))) as events:
        await events.to_end()
    assert events.offset == 100_000 * 10
    assert events.text(STDOUT) == counted(STDOUT, 100_000)
    assert events.text(STDERR) == counted(STDERR, 100_000)


async def test_line_mode_never_cuts_a_line(stub: Stub, workspace: pb.Workspace) -> None:
    """Lines of up to just below 64 KiB, written in crumbs, with a tail without an end."""
    lengths = [0, 1, 65534, 4095, 4096, 30000, 40000, 65534, 17] * 5 + [4]
    code = f"""
import os
data = b"\\n".join(b"x" * length for length in {lengths})
for start in range(0, len(data), 20011):
    os.write(1, data[start : start + 20011])
    os.write(2, b"y" * 50 + b"\\n")
"""
    async with EventReader(stub, start(workspace, python(code), line_mode=True)) as events:
        await events.to_end()
    *whole, last = [output.data for output in events.outputs if output.source == STDOUT]
    assert all(data.endswith(b"\n") for data in whole)
    assert last.endswith(b"xxxx")
    assert [len(line) for line in events.text(STDOUT).split(b"\n")] == lengths
    assert all(output.data.endswith(b"\n") for output in events.outputs if output.source == STDERR)


async def test_line_mode_gives_a_line_that_is_too_long_in_pieces(stub: Stub, workspace: pb.Workspace) -> None:
    code = "import os; os.write(1, b'x' * 300_000 + b'\\nshort\\n')"
    async with EventReader(stub, start(workspace, python(code), line_mode=True)) as events:
        await events.to_end()
    assert events.text() == b"x" * 300_000 + b"\nshort\n"
    assert events.outputs[-1].data.endswith(b"short\n")


async def test_keepalive_is_sent_when_nothing_happens(stub: Stub, workspace: pb.Workspace) -> None:
    request = start(workspace, shell("until [ -e go ]; do sleep 0.05; done; echo done"), keepalive_interval=seconds(1))
    async with EventReader(stub, request) as events:
        assert await events.next() == "started"
        quiet_since = time.monotonic()
        assert await events.next() == "keepalive"
        assert await events.next() == "keepalive"
        assert time.monotonic() - quiet_since >= 1.9
        host_file(workspace, "go").touch()
        await events.to_end()
    assert events.text() == b"done\n"


async def test_cut_and_resumed_stream_loses_and_doubles_nothing(stub: Stub, workspace: pb.Workspace) -> None:
    """The connection breaks time and again, at other places each time, in the middle of what was sent too."""
    received, offset, cuts = {STDOUT: bytearray(), STDERR: bytearray()}, 0, 0
    request = start(workspace, count(LINES), linger=seconds(60))
    while True:
        limit, unused = 90_000 + 37_003 * (cuts % 13), 1 + 7 * cuts % 2_000
        async with EventReader(stub, request) as events:
            while events.termination is None and events.offset - offset < limit:
                await events.next()
        assert events.lost_bytes == 0
        if events.termination is None:
            # Of the last output only a part is taken to have arrived.
            events.outputs[-1].data = events.outputs[-1].data[: max(1, len(events.outputs[-1].data) - unused)]
        for output in events.outputs:
            assert output.offset == offset
            offset += len(output.data)
            received[output.source] += output.data
        if events.termination is not None:
            break
        cuts += 1
        request = resume(workspace, events.process_id, offset)
    assert cuts >= 15
    assert events.termination.exit_code == 0
    assert offset == LINES * 10
    assert received[STDOUT] == counted(STDOUT, LINES)
    assert received[STDERR] == counted(STDERR, LINES)


async def test_lingering_process_is_held_back_and_loses_nothing(stub: Stub, workspace: pb.Workspace) -> None:
    """Its log is full before anybody reads; another reader gets everything from the first byte on."""
    async with EventReader(stub, start(workspace, count(LINES, progress="written"), linger=seconds(60))) as events:
        await events.until("started")
    progress = host_file(workspace, "written")
    sizes = [-1, -2]
    while sizes[-1] != sizes[-2] or sizes[-1] < 1 << 19:
        await asyncio.sleep(0.25)
        sizes.append(progress.stat().st_size)
        assert len(sizes) < 80, "it is not held back"
    async with EventReader(stub, resume(workspace, events.process_id)) as again:
        await again.to_end()
    assert again.lost_bytes == 0
    assert again.text(STDOUT) == counted(STDOUT, LINES)
    assert again.text(STDERR) == counted(STDERR, LINES)


async def test_resuming_from_before_what_is_kept_tells_the_gap(stub: Stub, workspace: pb.Workspace) -> None:
    async with EventReader(stub, start(workspace, count(LINES), linger=seconds(60))) as events:
        await events.to_end()
    async with EventReader(stub, resume(workspace, events.process_id)) as again:
        await again.to_end()
    assert events.lost_bytes == 0
    assert again.offset == LINES * 10
    assert 0 < again.lost_bytes == again.outputs[0].offset
    for source in (STDOUT, STDERR):
        assert again.text(source)
        assert counted(source, LINES).endswith(again.text(source))


async def test_two_readers_of_one_process_read_the_same(stub: Stub, workspace: pb.Workspace) -> None:
    async with EventReader(stub, start(workspace, count(60_000, wait_for="go"))) as first:
        await first.until("started")
        async with EventReader(stub, resume(workspace, first.process_id)) as second:
            await second.until("started")
            host_file(workspace, "go").touch()
            await asyncio.gather(first.to_end(), second.to_end())
    assert first.process_id == second.process_id
    assert first.text(STDOUT) == second.text(STDOUT) == counted(STDOUT, 60_000)
    assert first.text(STDERR) == second.text(STDERR) == counted(STDERR, 60_000)


async def test_reader_that_does_not_read_holds_up_no_one(stub: Stub, workspace: pb.Workspace) -> None:
    """Neither another command, nor another reader of the same process."""
    async with EventReader(stub, start(workspace, count(LINES), linger=seconds(60))) as idle:
        await idle.until("started")
        async with EventReader(stub, resume(workspace, idle.process_id)) as other:
            await other.to_end()
        assert other.offset == LINES * 10
        async with EventReader(stub, start(workspace, count(60_000))) as quick:
            await quick.to_end()
        assert quick.text(STDOUT) == counted(STDOUT, 60_000)


async def test_finished_process_is_remembered_for_its_linger(stub: Stub, workspace: pb.Workspace) -> None:
    async with EventReader(stub, start(workspace, shell("echo hi; exit 3"), linger=seconds(60))) as events:
        await events.to_end()
    async with EventReader(stub, resume(workspace, events.process_id, 1)) as again:
        assert (await again.to_end()).exit_code == 3
    assert again.text() == b"i\n"
    async with EventReader(stub, resume(workspace, events.process_id, 3)) as at_the_end:
        await at_the_end.to_end()
    assert at_the_end.text() == b""


async def test_process_that_ended_without_a_reader_can_be_read(stub: Stub, workspace: pb.Workspace) -> None:
    command = shell("echo begun; until [ -e go ]; do sleep 0.05; done; echo ended; touch finished; exit 4")
    async with EventReader(stub, start(workspace, command, linger=seconds(60))) as events:
        await events.until("output")
    host_file(workspace, "go").touch()
    await eventually(host_file(workspace, "finished").exists, "it has ended")
    async with EventReader(stub, resume(workspace, events.process_id, events.offset)) as again:
        assert (await again.to_end()).exit_code == 4
    assert again.text() == b"ended\n"


async def test_resuming_past_the_end(stub: Stub, workspace: pb.Workspace) -> None:
    async with EventReader(stub, start(workspace, shell("echo hi; sleep 1000"), linger=seconds(60))) as events:
        await events.until("output")
        with refused(grpc.StatusCode.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE"):
            await call(stub, resume(workspace, events.process_id, 4))


async def test_resuming_what_is_not_there(stub: Stub, workspace: pb.Workspace) -> None:
    async with EventReader(stub, start(workspace, shell("true"))) as forgotten:
        await forgotten.to_end()
    for process_id in ("p-0123456789abcdef", "../" * 40 + "\n", forgotten.process_id):
        with refused(grpc.StatusCode.NOT_FOUND, "PROCESS_NOT_FOUND"):
            await call(stub, resume(workspace, process_id))
