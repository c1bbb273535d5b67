"""Faults around a client's workspace: its program, its guest, a shim or its service is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentic_isolation import AgenticWorkspace, IsolationError, TerminationCause, UnavailableError, WorkspaceLostError
from agentic_isolation._channel import ChannelConnection
from agentic_isolation.models import WorkspaceState
from agentic_isolation.service import ServiceClient
from agentic_isolation.v1 import workspace_pb2 as pb
from tests.support import proc
from tests.support.clients import ClientProgram
from tests.support.eventually import eventually
from tests.support.jobs import TREE_SIZE, new_mark, tree
from tests.support.leaks import PREFIX
from tests.support.proc import find_process, mentioning
from tests.support.service import ServedProcess
from tests.support.ways import Way

LEASE = 4.0


@pytest.mark.parametrize("mode", ["execute", "stream"])
async def test_killed_program_with_its_embedded_service(mode: str) -> None:
    """Without patience its commands die with it at once; its guest and all directories go when the lease ends."""
    temporary = Path(tempfile.gettempdir())
    before = set(temporary.glob(PREFIX + "*"))  # noqa: ASYNC240  a look at the disk
    mark = new_mark()
    with ClientProgram(Way.of("local-embedded"), mode=mode, mark=mark, lease=LEASE) as client:
        (state,) = set(temporary.glob(PREFIX + "*")) - before  # noqa: ASYNC240
        guests = [process for process in proc.belonging_to(state) if process.arguments.endswith(" serve")]
        assert len(guests) == 1
        client.kill()
        killed_at = time.monotonic()
        await eventually(lambda: not mentioning(mark), "the commands are gone")
        assert time.monotonic() - killed_at < LEASE / 2
        await eventually(lambda: not proc.belonging_to(state), "the guest is gone")
        await eventually(lambda: not state.exists(), "its directories are gone")


@pytest.fixture(params=["embedded", "served"])
def target(request: pytest.FixtureRequest, service: ServedProcess) -> str:
    return service.target if request.param == "served" else ""


def guest_of(ws: AgenticWorkspace) -> int:
    """Returns the guest of a workspace."""
    home = os.path.dirname(ws.info.host_path)
    (guest,) = [process for process in proc.belonging_to(Path(home)) if process.arguments.endswith(" serve")]
    return guest.pid


async def test_requests_that_cannot_be_made_say_why(service: ServedProcess) -> None:
    """gRPC cancels a call whose requests fail, and a cancellation that nobody has asked for tells nobody anything."""

    async def failing(*first: object) -> AsyncIterator[object]:
        for request in first:
            yield request
        raise KeyError("a defect")

    connection = ChannelConnection(service.target)
    async with contextlib.aclosing(connection), AgenticWorkspace.create(provider="local", target=service.target) as ws:
        header = pb.WriteFileHeader(workspace_id=ws.id, path="file")
        opening = pb.AttachOpen(
            workspace_id=ws.id, start=pb.ProcessStart(command=pb.Command(shell="sleep 60")), request_id=new_mark()
        )
        for first in ((), (pb.WriteFileRequest(header=header),)):
            with pytest.raises(KeyError, match="a defect"):
                await connection.attempt(connection.stub.WriteFile, failing(*first), connection.patience(), head=header)
        async with contextlib.aclosing(
            connection.stream(connection.stub.Attach, failing(pb.AttachRequest(open=opening)), head=opening)
        ) as responses:
            with pytest.raises(KeyError, match="a defect"):
                async for _ in responses:
                    pass


async def test_killed_guest(target: str) -> None:
    """What runs and what comes later says within a second that the workspace is lost; closing cleans up."""
    mark = new_mark()
    async with AgenticWorkspace.create(provider="local", target=target, lease=60) as ws:

        async def read() -> None:
            async for _ in ws.stream(["sleep", mark]):
                pass

        running = [asyncio.create_task(ws.execute(tree(mark))), asyncio.create_task(read())]
        await eventually(lambda: len(mentioning(mark)) >= TREE_SIZE + 1, "the commands run")
        os.kill(guest_of(ws), signal.SIGKILL)
        killed_at = time.monotonic()
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        assert time.monotonic() - killed_at < 1
        assert [type(outcome) for outcome in outcomes] == [WorkspaceLostError] * 2
        for call in (ws.execute("true"), ws.write_file("file", ""), ws.read_file("file"), ws.files.list()):
            with pytest.raises(WorkspaceLostError, match=ws.id):
                await call
        with pytest.raises(WorkspaceLostError):
            async for _ in ws.stream("true"):
                pass
        assert time.monotonic() - killed_at < 2
        await eventually(lambda: not mentioning(mark), "the shims have killed what they started")
    assert not list(Path(tempfile.gettempdir()).glob(f"**/{ws.id}"))  # noqa: ASYNC240  a look at the disk


async def test_killed_guest_is_seen_in_the_list(service: ServedProcess) -> None:
    """Also when nobody uses the workspace."""
    async with AgenticWorkspace.create(provider="local", target=service.target, labels={"for": "loss"}, lease=60) as ws:
        os.kill(guest_of(ws), signal.SIGKILL)
        async with ServiceClient(service.target) as client:

            async def lost() -> bool:
                listed = [workspace async for workspace in client.list_workspaces({"for": "loss"})]
                return [workspace.state for workspace in listed] == [WorkspaceState.LOST]

            await eventually(lost, "the workspace is listed as lost", within=5)


async def test_killed_shim(target: str) -> None:
    """Nothing in the workspace tells the command's tree from others any more: it is killed, and that is the result."""
    mark = new_mark()
    async with AgenticWorkspace.create(provider="local", target=target, lease=60) as ws:
        running = asyncio.create_task(ws.execute(f"echo begun; setsid sleep {mark} & sleep {mark}"))
        await eventually(lambda: len(mentioning(f"sleep {mark}")) >= 3, "the command runs")
        shim = next(process.parent for process in mentioning("sh -c") if mark in process.arguments)
        found = find_process(shim)
        assert found is not None
        assert found.arguments.endswith(" shim")
        os.kill(shim, signal.SIGKILL)
        result = await running
        assert result.termination is not None
        assert result.termination.cause is TerminationCause.KILLED
        assert not result.success
        await eventually(lambda: not mentioning(mark), "its tree is gone")
        assert (await ws.execute("echo fine")).stdout == "fine\n"


async def test_killed_service(directory: Path) -> None:
    """A client without patience says that it cannot be reached, also on closing, and holds nothing of it any more."""
    with ServedProcess("--address", f"unix:{directory}/grpc.sock", environment={"TMPDIR": str(directory)}) as service:
        ws = await AgenticWorkspace.create(provider="local", target=service.target, lease=1, retry_timeout=0)
        running = asyncio.create_task(ws.execute("sleep 1000"))
        assert (await ws.execute("echo ready")).success
        service.kill()
        with pytest.raises(UnavailableError, match=r"grpc\.sock"):
            await running
        with pytest.raises(UnavailableError):
            await ws.execute("true")
        with pytest.raises(IsolationError):
            await ws.close()
        await ws.close()
    await eventually(lambda: not proc.belonging_to(directory), "the guest has ended with its lease")
