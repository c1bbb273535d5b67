"""The client goes on over a path that breaks: every command runs once, and no byte of its output is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentic_isolation import (
    AgenticWorkspace,
    Exited,
    Output,
    OutputSource,
    ServiceClient,
    Started,
    UnavailableError,
    WorkspaceFileNotFoundError,
)
from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.counting import count, counted
from tests.support.clients import ClientProgram
from tests.support.eventually import eventually
from tests.support.faulty_path import FaultyPath, breaking
from tests.support.jobs import BLOCK_BYTES, TREE_SIZE, bulk, bulk_block, new_mark, sleep_for_ever, tree
from tests.support.proc import mentioning
from tests.support.service import ServedProcess
from tests.support.ways import Way
from tests.turns import WAITS

pytestmark = WAITS
RETRY_TIMEOUT = 20.0
NOTICED_WITHIN = 20.0
"""Seconds: a ping every ten, five for its answer, and some for a busy machine."""


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
        path.release()


def runs(ws: AgenticWorkspace) -> int:
    """How often a command ran that says so in the file `runs`."""
    return Path(ws.info.host_path, "runs").read_text().count("run\n")


def exists(ws: AgenticWorkspace) -> bool:
    """Whether the workspace's directory is there."""
    return Path(ws.info.host_path).exists()


def go(ws: AgenticWorkspace) -> None:
    """Lets commands go on that wait for a file."""
    Path(ws.info.host_path, "go").touch()


@pytest.mark.parametrize("seed", range(3))
async def test_execute_goes_on(ws: AgenticWorkspace, path: FaultyPath, seed: int) -> None:
    async with breaking(path, seed):
        for number in range(4):
            line = f"echo run >> runs; cat; sleep {0.4 * number}; echo {number}; echo err >&2; exit {number}"
            result = await ws.execute(line, stdin="given ")
            assert (result.stdout, result.stderr, result.exit_code) == (f"given {number}\n", "err\n", number)
    assert runs(ws) == 4


async def test_many_go_on_at_once(ws: AgenticWorkspace, path: FaultyPath) -> None:
    async with breaking(path, 7):
        results = await asyncio.gather(
            *(ws.execute(f"echo run >> runs; sleep {number % 8 / 4}; echo {number}") for number in range(24))
        )
    assert [result.stdout for result in results] == [f"{number}\n" for number in range(24)]
    assert runs(ws) == 24


@pytest.mark.parametrize("seed", range(2))
async def test_bulky_stream_goes_on(ws: AgenticWorkspace, path: FaultyPath, seed: int) -> None:
    """Both sources, more than what is kept of a process's output: it is held back until somebody reads on."""
    lines = 600_000
    kept = {OutputSource.STDOUT: bytearray(), OutputSource.STDERR: bytearray()}
    kinds = []
    offset = 0
    async with breaking(path, seed, pause=0.05):
        async for event in ws.stream(count(lines)).events():
            if isinstance(event, Output):
                assert event.offset == offset
                offset += len(event.data)
                kept[event.source] += event.data
            else:
                kinds.append(type(event))
    assert kinds == [Started, Exited]
    assert kept[OutputSource.STDOUT] == counted(pb.OUTPUT_SOURCE_STDOUT, lines)
    assert kept[OutputSource.STDERR] == counted(pb.OUTPUT_SOURCE_STDERR, lines)


async def test_lines_stay_whole(ws: AgenticWorkspace, path: FaultyPath) -> None:
    """Of events as well: none ends inside a line that is shorter than 64 KiB."""
    blocks = 100
    async with breaking(path, 3, pause=0.05):
        lines = [line async for line in ws.stream(bulk(blocks))]
    text = b"".join(bulk_block(number) for number in range(blocks)).decode()
    assert lines == text.splitlines()
    assert len(text) == blocks * BLOCK_BYTES


async def test_slow_stream_goes_on(ws: AgenticWorkspace, path: FaultyPath) -> None:
    line = "echo run >> runs; for i in $(seq 30); do echo $i; sleep 0.1; done; exit 3"
    stream = ws.stream(line)
    async with breaking(path, 5):
        lines = [line async for line in stream]
    assert lines == [str(number) for number in range(1, 31)]
    assert stream.exit_code == 3
    assert runs(ws) == 1


async def test_slow_reader_goes_on(ws: AgenticWorkspace, path: FaultyPath) -> None:
    blocks = 40
    lines = []
    async with breaking(path, 9, pause=0.1):
        async for line in ws.stream(bulk(blocks)):
            lines.append(line)
            await asyncio.sleep(0.03)
    assert lines == b"".join(bulk_block(number) for number in range(blocks)).decode().splitlines()


async def test_files_go_on(ws: AgenticWorkspace, path: FaultyPath) -> None:
    data = random.Random(1).randbytes(8 << 20)
    began = time.monotonic()
    await ws.write_file("measured", data)
    assert await ws.read_file("measured") == data
    took = time.monotonic() - began
    # A file goes over one connection, which has to last for so long now and then, however slow the machine is.
    async with breaking(path, 11, pause=max(0.1, took)):
        for number in range(8):
            await ws.write_file(f"d/file-{number}", data)
            assert await ws.read_file(f"d/file-{number}") == data
            assert (await ws.files.stat(f"d/file-{number}")).size_bytes == len(data)
            assert len(await ws.files.list("d")) == number + 1
            await ws.files.make_directory("d/e")
            await ws.files.remove("d/e")
    with pytest.raises(WorkspaceFileNotFoundError):
        await ws.files.remove("d/e")


async def test_creations_go_on(service: ServedProcess, path: FaultyPath) -> None:
    """Each makes one workspace, and closing it removes it. The fixtures look for directories and guests."""
    began = time.monotonic()
    async with AgenticWorkspace.create(provider="local", target=path.target, lease=60):
        took = time.monotonic() - began
    # One whose connection breaks is undone, so a connection has to last for so long now and then, as above.
    async with breaking(path, 13, pause=max(0.02, took)):
        for _ in range(5):
            async with AgenticWorkspace.create(provider="local", target=path.target, lease=60) as ws:
                assert exists(ws)
            assert not exists(ws)


async def test_path_that_leads_nowhere_is_noticed(ws: AgenticWorkspace, path: FaultyPath) -> None:
    """By pings, whatever the command does; what comes back on another connection goes on where it was."""
    execute = asyncio.create_task(ws.execute("echo run >> runs; until [ -e go ]; do sleep 0.05; done; echo done"))
    stream = ws.stream("echo first; until [ -e go ]; do sleep 0.05; done; echo last")
    assert await anext(stream) == "first"
    await eventually(Path(ws.info.host_path, "runs").exists, "it runs")
    connections = path.connection_count
    path.hold()
    began = time.monotonic()
    stat = asyncio.create_task(ws.files.stat("runs"))
    await eventually(lambda: path.connection_count > connections, "another one is tried", within=NOTICED_WITHIN)
    assert time.monotonic() - began < NOTICED_WITHIN
    await path.reset()
    path.release()
    assert (await stat).size_bytes == len("run\n")
    go(ws)
    assert (await execute).stdout == "done\n"
    assert [line async for line in stream] == ["last"]
    assert runs(ws) == 1


async def test_silent_command_is_waited_for(path: FaultyPath) -> None:
    """The service does not mind the pings of clients that wait: the connection is never made anew.

    It would be at the fourth or fifth ping in a row (GOAWAY, too_many_pings); a renewal of the lease would be between.
    """
    async with AgenticWorkspace.create(provider="local", target=path.target, lease=600) as ws:
        connections = path.connection_count
        assert (await ws.execute("sleep 52; echo done")).stdout == "done\n"
        assert path.connection_count == connections


async def test_slow_path_is_no_broken_one(ws: AgenticWorkspace, path: FaultyPath) -> None:
    """However much is to be sent, pings do not wait behind it for so long that nobody seems to be there."""
    connections = path.connection_count
    path.rate = 100_000
    content = random.Random(5).randbytes(4_000_000)
    await ws.write_file("file", content)
    path.rate = 0
    assert await ws.read_file("file") == content
    assert path.connection_count == connections


@pytest.mark.parametrize("end", ["refuse", "swallow"])
@pytest.mark.parametrize("mode", ["execute", "stream"])
async def test_patience_ends(service: ServedProcess, path: FaultyPath, mode: str, end: str) -> None:
    """The error says what was tried and for how long. The command's linger is as long as the patience."""
    mark = new_mark()
    async with (
        AgenticWorkspace.create(provider="local", target=service.target, lease=60) as maker,
        AgenticWorkspace.connect(maker.id, target=path.target, retry_timeout=2) as ws,
    ):

        async def run() -> None:
            if mode == "execute":
                await ws.execute(sleep_for_ever(mark))
            else:
                async for _ in ws.stream(sleep_for_ever(mark)):
                    pass

        running = asyncio.create_task(run())
        await eventually(lambda: mentioning(mark), "it runs")
        began = time.monotonic()
        if end == "refuse":
            await path.refuse()
        else:
            path.hold()
        with pytest.raises(UnavailableError, match=rf"{path.target}.*\(tried \d+ times in [\d.]+ s\)"):
            await running
        took = time.monotonic() - began
        assert took > 2
        assert took < 5 if end == "refuse" else took < NOTICED_WITHIN + 10
        if end == "refuse":
            await eventually(lambda: not mentioning(mark), "its linger is over")
            await path.accept()
        else:
            await path.reset()
            path.release()
        await eventually(lambda: not mentioning(mark), "it has ended")


async def test_no_patience(path: FaultyPath) -> None:
    """With 0 a command dies with its connection, and a service that is away is told at once."""
    mark = new_mark()
    async with AgenticWorkspace.create(provider="local", target=path.target, lease=60, retry_timeout=0) as ws:
        running = asyncio.create_task(ws.execute(sleep_for_ever(mark)))
        await eventually(lambda: mentioning(mark), "it runs")
        await path.reset()
        with pytest.raises(UnavailableError, match=path.target) as raised:
            await running
        assert "tried" not in str(raised.value)
        await eventually(lambda: not mentioning(mark), "it is gone", within=5)

        async def reached() -> bool:
            with contextlib.suppress(UnavailableError):
                return (await ws.execute("true")).success
            return False

        await eventually(reached, "there is another connection")


@pytest.mark.parametrize("mode", ["execute", "stream"])
async def test_cancelled_while_the_path_is_broken(ws: AgenticWorkspace, path: FaultyPath, mode: str) -> None:
    """It is killed as soon as there is a path again, before cancellation returns."""
    mark = new_mark()

    async def run() -> None:
        if mode == "execute":
            await ws.execute(tree(mark))
        else:
            async for _ in ws.stream(tree(mark)):
                pass

    running = asyncio.create_task(run())
    await eventually(lambda: len(mentioning(mark)) >= TREE_SIZE, "the tree has grown")
    await path.refuse()
    await asyncio.sleep(0.2)
    running.cancel()
    await asyncio.sleep(0.2)
    assert mentioning(mark)
    await path.accept()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not mentioning(mark)


async def test_cancelled_at_any_moment_over_a_broken_path(ws: AgenticWorkspace, path: FaultyPath) -> None:
    mark = new_mark()
    moments = random.Random(17)
    async with breaking(path, 17, pause=0.05):
        for _ in range(30):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(moments.uniform(0, 0.15)):
                    await ws.execute(sleep_for_ever(mark))
    assert not mentioning(mark)


@pytest.mark.parametrize("mode", ["execute", "stream"])
async def test_commands_of_a_killed_program(service: ServedProcess, mode: str) -> None:
    """They outlive it for its retry_timeout, as nobody can tell that it will not come back."""
    mark = new_mark()
    way = Way.of("local-served", target=service.target, service_pid=service.pid)
    with ClientProgram(way, mode=mode, mark=mark, lease=60, retry_timeout=2) as client:
        client.kill()
        killed_at = time.monotonic()
        # One of them may be just between two programs.
        await eventually(lambda: len(mentioning(mark)) >= TREE_SIZE, "they live on", within=1)
        await eventually(lambda: not mentioning(mark), "they are gone")
        assert 1 < time.monotonic() - killed_at < 6
        async with AgenticWorkspace.connect(client.workspace_id, target=service.target) as ws:
            assert (await ws.execute("echo the workspace is there")).success
        async with ServiceClient(service.target) as everything:
            await everything.destroy_workspace(client.workspace_id)


async def test_closing_what_was_connected_to_kills_its_commands(service: ServedProcess) -> None:
    mark, other = new_mark(), new_mark()
    async with AgenticWorkspace.create(provider="local", target=service.target, lease=60) as maker:
        ws = await AgenticWorkspace.connect(maker.id, target=service.target)
        running = [asyncio.create_task(ws.execute(sleep_for_ever(mark))) for _ in range(3)]
        others = asyncio.create_task(maker.execute(sleep_for_ever(other)))
        await ws.start(sleep_for_ever(mark))
        let_go = await ws.start(sleep_for_ever(other))
        await let_go.detach()
        await eventually(lambda: len(mentioning(mark)) == 4 and len(mentioning(other)) == 2, "all run")
        await ws.close()
        assert not mentioning(mark)
        assert len(mentioning(other)) == 2
        await asyncio.gather(*running, return_exceptions=True)
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)
