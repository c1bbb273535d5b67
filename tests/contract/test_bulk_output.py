"""200 MB of output: kept in part by execute, passed on whole by stream, and held by nobody."""

from __future__ import annotations

import asyncio
import hashlib

from agentic_isolation import Output
from tests.support.jobs import BLOCK_BYTES, bulk, bulk_block
from tests.support.memory import stays_flat
from tests.support.ways import Way, Workspace

BLOCKS = 3200
"""Blocks of 64 KiB: 200 MiB."""
LIMIT = 1 << 20


def expected_digest(blocks: int) -> str:
    digest = hashlib.blake2b()
    for number in range(blocks):
        digest.update(bulk_block(number))
    return digest.hexdigest()


async def test_execute_keeps_head_and_tail(way: Way, ws: Workspace) -> None:
    with stays_flat(way.service_pid, *way.guest_pids()):
        result = await ws.execute(bulk(BLOCKS))
    output = result.output[0]
    blocks = LIMIT // 2 // BLOCK_BYTES
    assert result.exit_code == 0
    assert result.truncated
    assert (output.total_bytes, output.omitted_bytes) == (BLOCKS * BLOCK_BYTES, BLOCKS * BLOCK_BYTES - LIMIT)
    assert output.head == b"".join(bulk_block(number) for number in range(blocks))
    assert output.tail == b"".join(bulk_block(number) for number in range(BLOCKS - blocks, BLOCKS))


async def test_stream_passes_on_every_byte_while_others_go_their_way(way: Way, ws: Workspace) -> None:
    """The reader stalls with most of it still to come, and everything else on the workspace goes on meanwhile."""
    digest, length, stalled = hashlib.blake2b(), 0, False
    with stays_flat(way.service_pid, *way.guest_pids()):
        async for event in ws.stream(bulk(BLOCKS)).events():
            if not isinstance(event, Output):
                continue
            assert event.offset == length
            digest.update(event.data)
            length += len(event.data)
            if not stalled:
                stalled = True
                await everything_else_works(ws)
    assert length == BLOCKS * BLOCK_BYTES
    assert digest.hexdigest() == expected_digest(BLOCKS)


async def everything_else_works(ws: Workspace) -> None:
    """Runs commands, another stream of more than any window or log, and files, all of it on the same workspace."""
    blocks = 512

    async def read_other_stream() -> str:
        digest = hashlib.blake2b()
        async for event in ws.stream(bulk(blocks)).events():
            if isinstance(event, Output):
                digest.update(event.data)
        return digest.hexdigest()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        other = group.create_task(read_other_stream())
        for number in range(20):
            assert (await ws.execute(f"echo {number}")).stdout == f"{number}\n"
        await ws.write_file("file", bytes(1 << 20))
        assert await ws.read_file("file") == bytes(1 << 20)
    assert other.result() == expected_digest(blocks)


async def test_many_stalled_readers_hold_up_nobody(way: Way, ws: Workspace) -> None:
    """What each of them may have under way is bounded, wherever it lies: in the guest, in the service, in gRPC."""
    streams = [ws.stream(bulk(BLOCKS)).events() for _ in range(32)]
    with stays_flat(way.service_pid, *way.guest_pids(), within=len(streams) * (8 << 20)):
        for stream in streams:
            while not isinstance(await anext(stream), Output):
                pass
        await everything_else_works(ws)
    del stream, streams


async def test_lines_of_much_output(way: Way, ws: Workspace) -> None:
    count, total = 0, 300_000
    with stays_flat(way.service_pid, *way.guest_pids()):
        async for line in ws.stream(["seq", str(total)]):
            count += 1
            assert line == str(count)
    assert count == total
