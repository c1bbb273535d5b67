"""Envoy repeats calls whose first try did run: there is one run and one result. Without a request_id it repeats none.

The connection between Envoy and the service breaks when the request has gone through and its answer has not. Commands
append to the file `runs`, so that a second run would be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from agentic_isolation import AgenticWorkspace
from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import LEASE, Stub, connected, host_file, seconds, shell
from tests.support.envoy import Envoy
from tests.support.eventually import eventually
from tests.support.faulty_path import FaultyPath
from tests.support.jobs import BLOCK_BYTES, bulk, bulk_block, new_mark
from tests.support.replica import Replica

LINGER = seconds(60)
BLOCKS = 48
RUN = "echo run >> runs; until [ -e go ]; do sleep 0.02; done; echo done"


@dataclass
class Faulty:
    """One replica behind Envoy, and a path between them that a test breaks."""

    replica: Replica
    path: FaultyPath
    envoy: Envoy
    stub: Stub

    async def lose_the_answer(self, arrived: Any) -> None:
        """Breaks the connection when a request has arrived, whose answer does not get through."""
        self.path.hold_answers()
        await eventually(arrived, "the request has gone through")
        await self.path.reset()
        self.path.release()


@contextlib.asynccontextmanager
async def behind_a_faulty_path(directory: Path) -> AsyncIterator[Faulty]:
    replica = Replica("one", directory, "--grace", "1", address=f"unix:{directory}/one.sock")
    path = FaultyPath(replica.address)
    await replica.start()
    try:
        async with path:
            envoy = await asyncio.to_thread(Envoy, directory / "envoy", {"one": path.port})
            try:
                async with connected(envoy.target) as stub:
                    yield Faulty(replica, path, envoy, stub)
            finally:
                envoy.kill()
    finally:
        await replica.aclose()


@pytest.fixture
def ground(forks: None) -> None:
    """Nothing is asked of the shared mesh here."""


@pytest.fixture
async def faulty(directory: Path) -> AsyncIterator[Faulty]:
    async with behind_a_faulty_path(directory) as faulty:
        yield faulty


async def create(stub: Stub, **fields: Any) -> pb.Workspace:
    request = pb.CreateWorkspaceRequest(provider="local", lease_duration=seconds(LEASE), **fields)
    return (await stub.CreateWorkspace(request)).workspace


def runs(workspace: pb.Workspace) -> int:
    """How often a command ran."""
    file = host_file(workspace, "runs")
    return file.read_text().count("run\n") if file.exists() else 0


async def attempts(call: Any) -> int:
    """How often Envoy has tried, as it tells its client."""
    return int(dict(await call.initial_metadata())["x-envoy-attempt-count"])


async def test_answers_that_were_lost(faulty: Faulty) -> None:
    stub, mark = faulty.stub, new_mark()

    async def made() -> int:
        return len(await faulty.replica.workspaces(m=mark))

    creation = pb.CreateWorkspaceRequest(provider="local", labels={"m": mark}, request_id=mark)
    creating: Any = stub.CreateWorkspace(creation)
    await faulty.lose_the_answer(made)
    workspace = (await creating).workspace
    assert [found.workspace_id for found in await faulty.replica.workspaces()] == [workspace.workspace_id]
    assert await attempts(creating) >= 2

    command = pb.ExecuteRequest(
        workspace_id=workspace.workspace_id, command=shell(RUN), linger=LINGER, request_id="execute"
    )
    executing: Any = stub.Execute(command)
    await faulty.lose_the_answer(lambda: runs(workspace))
    host_file(workspace, "go").touch()
    result = await executing
    assert (result.stdout.head, result.termination.exit_code) == (b"done\n", 0)
    assert await attempts(executing) >= 2
    assert runs(workspace) == 1

    start = pb.ProcessStart(command=shell(RUN))
    streaming: Any = stub.Stream(
        pb.StreamRequest(workspace_id=workspace.workspace_id, start=start, linger=LINGER, request_id="stream")
    )
    await faulty.lose_the_answer(lambda: runs(workspace) == 2)
    events = [event.WhichOneof("event") async for event in streaming]
    assert events == ["started", "output", "exited"]
    assert await attempts(streaming) >= 2
    assert runs(workspace) == 2


async def test_compressed_calls_are_repeated_by_their_metadata(faulty: Faulty) -> None:
    """Envoy does not read them: what it goes by in others is in the metadata."""
    workspace = await create(faulty.stub)
    command = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell(RUN), linger=LINGER, request_id="x")
    metadata = (("agentic-isolation-workspace", workspace.workspace_id), ("agentic-isolation-request", "x"))
    executing: Any = faulty.stub.Execute(command, metadata=metadata, compression=grpc.Compression.Gzip)
    await faulty.lose_the_answer(lambda: runs(workspace))
    host_file(workspace, "go").touch()
    assert (await executing).stdout.head == b"done\n"
    assert await attempts(executing) >= 2
    assert runs(workspace) == 1


async def test_without_a_request_id_nothing_is_repeated(faulty: Faulty) -> None:
    """Envoy cannot know whether it ran; its client is told UNAVAILABLE, after the one try."""
    workspace = await create(faulty.stub)
    command = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell("echo run >> runs"), linger=LINGER)
    for count in (1, 2):
        executing: Any = faulty.stub.Execute(command)
        await faulty.lose_the_answer(lambda count=count: runs(workspace) == count)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await executing
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (await faulty.envoy.counted())["upstream_rq_retry"] == 0
    reading: Any = faulty.stub.GetWorkspace(pb.GetWorkspaceRequest(workspace_id=workspace.workspace_id))
    assert (await reading).workspace.workspace_id == workspace.workspace_id
    assert runs(workspace) == 2


async def test_service_that_is_killed_under_a_command(faulty: Faulty) -> None:
    """Envoy waits for the next one, and joins what has gone on meanwhile. Its client sees a slow call."""
    workspace = await create(faulty.stub)
    command = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell(RUN), linger=LINGER, request_id="x")
    executing: Any = faulty.stub.Execute(command)
    await eventually(lambda: runs(workspace), "it runs")
    await faulty.replica.restart(signal.SIGKILL)
    other = await faulty.stub.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell("echo hi")))
    assert other.stdout.head == b"hi\n"
    host_file(workspace, "go").touch()
    assert (await executing).stdout.head == b"done\n"
    assert runs(workspace) == 1


async def test_service_that_is_killed_under_streams(faulty: Faulty) -> None:
    """Envoy resets what has begun to be answered, which gRPC calls INTERNAL. Our client goes on where it was."""
    lines = "for i in 1 2 3; do echo $i; until [ -e go$i ]; do sleep 0.02; done; done"
    async with AgenticWorkspace.create(provider="local", target=faulty.envoy.target) as workspace:
        stream = workspace.stream(lines)
        process = await workspace.start(["cat"])
        answers = process.lines()
        for number in ("1", "2", "3"):
            assert await anext(stream) == number
            await process.write(f"{number}\n")
            assert await anext(answers) == number
            await faulty.replica.restart(signal.SIGKILL)
            await workspace.write_file(f"go{number}", "")
        assert [line async for line in stream] == []
        await process.send_eof()
        assert (await process.wait()).exit_code == 0


async def test_slow_reader_whose_connection_breaks(faulty: Faulty) -> None:
    """What lies in Envoy is lost with a connection; it is less than what a workspace keeps, so no byte is missing."""
    async with (
        FaultyPath(faulty.envoy.target) as front,
        AgenticWorkspace.create(provider="local", target=front.target) as workspace,
    ):
        content = b""
        async for event in workspace.stream(bulk(BLOCKS)).events():
            assert not getattr(event, "lost_bytes", 0)
            before = len(content) // (4 * BLOCK_BYTES)
            content += getattr(event, "data", b"")
            if len(content) // (4 * BLOCK_BYTES) != before:
                await asyncio.sleep(0.1)  # for Envoy, and all else on the way, to fill up
                await front.reset()
        assert content == b"".join(map(bulk_block, range(BLOCKS)))
