"""What goes into processes and workspaces goes there once: over a path that breaks, and past a service's end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentic_isolation import AgenticWorkspace, FileChange, Output, Process, WatchOverflow
from tests.integration.lasting import lasting
from tests.support.faulty_path import FaultyPath, breaking
from tests.support.service import ServedProcess

CONTENT = random.Random(3).randbytes(24 << 20)
PIECE = 256 << 10
RETRY_TIMEOUT = 30.0


@pytest.fixture
async def path(service: ServedProcess) -> AsyncIterator[FaultyPath]:
    async with FaultyPath(service.target) as path:
        yield path


@pytest.fixture
async def ws(path: FaultyPath) -> AsyncIterator[AgenticWorkspace]:
    async with AgenticWorkspace.create(
        provider="local", target=path.target, lease=60, retry_timeout=RETRY_TIMEOUT
    ) as ws:
        yield ws


async def feed(process: Process, content: bytes) -> None:
    for start in range(0, len(content), PIECE):
        await process.write(content[start : start + PIECE])
        await asyncio.sleep(0.01)
    await process.send_eof()


async def echoed(process: Process) -> bytes:
    return b"".join([event.data async for event in process if isinstance(event, Output)])


async def test_input_and_output_are_whole_over_a_path_that_breaks(ws: AgenticWorkspace, path: FaultyPath) -> None:
    async with breaking(path, seed=1), await ws.start(["cat"]) as process:
        feeding = asyncio.create_task(feed(process, CONTENT))
        received = await echoed(process)
        await feeding
        assert hashlib.sha256(received).digest() == hashlib.sha256(CONTENT).digest()
        assert process.exit_code == 0


async def test_input_goes_on_through_a_service_that_is_killed(directory: Path) -> None:
    async with lasting(directory) as service, service.running():
        target = f"unix:{directory}/grpc.sock"
        async with AgenticWorkspace.create(
            provider="local", target=target, lease=60, retry_timeout=RETRY_TIMEOUT
        ) as ws:
            detached = await ws.start("read line; echo $line; sleep 60", detached=True)
            async with await ws.start(["cat"]) as process:
                await process.write(CONTENT[: PIECE // 2])
                reading = asyncio.create_task(echoed(process))
                await service.end(signal.SIGKILL)
                await process.write(b"written while nobody is there")
                async with service.running():
                    await process.send_eof()
                    assert await reading == CONTENT[: PIECE // 2] + b"written while nobody is there"
                    assert (await process.wait()).exit_code == 0
                    await detached.write("still here\n")
                    assert await anext(aiter(detached.lines())) == "still here"
                    await detached.detach()
                    assert [found.running for found in await ws.processes()] == [True, False]


async def test_transfers_are_whole_over_a_path_that_breaks(
    ws: AgenticWorkspace, path: FaultyPath, tmp_path: Path
) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    for number in range(4):
        (source / str(number)).write_bytes(CONTENT[number << 17 : (number + 1) << 17])
    path.delay = 0.01
    async with breaking(path, seed=2, pause=0.2):
        for _ in range(4):
            await ws.upload(source, "there")
            await ws.download("there", tmp_path / "back")
            await ws.upload(source / "1", "single")
            await ws.download("single", tmp_path / "single")
    assert {each.name: each.read_bytes() for each in (tmp_path / "back").iterdir()} == {
        each.name: each.read_bytes() for each in source.iterdir()
    }
    assert (tmp_path / "single").read_bytes() == (source / "1").read_bytes()
    assert sorted(os.listdir(ws.info.host_path)) == ["single", "there"]


async def test_watch_says_that_it_was_away(ws: AgenticWorkspace, path: FaultyPath) -> None:
    async with ws.files.watch() as watch:
        await path.reset()
        assert await anext(watch) == WatchOverflow()
        await ws.write_file("new", "")
        change = await anext(watch)
        assert isinstance(change, FileChange)
        assert change.path == "/workspace/new"
