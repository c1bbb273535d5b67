"""Attach message by message, as any client may send them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from agentic_isolation import InputTakenError
from agentic_isolation._channel import ChannelConnection
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.rpc import errors
from agentic_isolation_service.serving import serve
from tests.integration.wire import Stub, a_workspace, argv, connected, refused, seconds, shell
from tests.support.eventually import eventually
from tests.support.service import ServedProcess

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
SIZE = pb.TerminalSize(columns=80, rows=24)


@pytest.fixture
async def stub(service: ServedProcess) -> AsyncIterator[Stub]:
    async with connected(service.target) as stub:
        yield stub


class Attached:
    """One call of Attach. Its requests stay open until it is left."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.received = b""

    async def send(self, **action: Any) -> None:
        await self._call.write(pb.AttachRequest(**action))

    async def half_close(self) -> None:
        await self._call.done_writing()

    async def until(self, kind: str) -> Any:
        """Reads to the next event of a kind and returns it."""
        while (event := await self._call.read()) is not grpc.aio.EOF:
            found = event.WhichOneof("event")
            if found == "output":
                self.received += event.output.data
            if found == kind:
                return getattr(event, kind)
        raise AssertionError(f"no {kind} came")

    async def to_end(self) -> None:
        """Reads to the end. Raises AioRpcError where there is an error."""
        with contextlib.suppress(AssertionError):
            await self.until("nothing")


@contextlib.asynccontextmanager
async def attached(stub: Stub, workspace: pb.Workspace, **opening: Any) -> AsyncIterator[Attached]:
    call: Any = stub.Attach()
    try:
        await call.write(pb.AttachRequest(open=pb.AttachOpen(workspace_id=workspace.workspace_id, **opening)))
        yield Attached(call)
    finally:
        call.cancel()


def starting(command: pb.Command) -> pb.ProcessStart:
    return pb.ProcessStart(command=command)


async def test_bad_messages_end_the_call_and_name_their_field(stub: Stub) -> None:
    wrong: list[tuple[dict[str, Any], dict[str, Any], tuple[Any, ...]]] = [
        ({}, {"stdin": bytes((64 << 10) + 1)}, (*INVALID, "stdin")),
        ({}, {"open": pb.AttachOpen()}, (*INVALID, "open")),
        ({}, {}, (*INVALID, "action")),
        ({}, {"signal": 0}, (*INVALID, "signal")),
        ({}, {"signal": 65}, (*INVALID, "signal")),
        ({"read_only": True}, {"stdin": b"x"}, (*INVALID, "stdin")),
        ({"read_only": True}, {"end_of_input": pb.EndOfInput()}, (*INVALID, "stdin")),
        ({"terminal": SIZE}, {"resize": pb.TerminalSize()}, (*INVALID, "resize.columns")),
    ]
    async with a_workspace(stub) as workspace:
        for opening, action, refusal in wrong:
            async with attached(stub, workspace, start=starting(argv("cat")), **opening) as call:
                await call.until("started")
                with refused(*refusal):
                    await call.send(**action)
                    await call.to_end()
        async with attached(stub, workspace, start=starting(argv("cat"))) as call:
            await call.until("started")
            await call.send(resize=SIZE)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.to_end()
            assert "resize" in str(caught.value.details())

        async def all_have_ended() -> bool:
            listing = await stub.ListProcesses(pb.ListProcessesRequest(workspace_id=workspace.workspace_id))
            return not any(process.state == pb.PROCESS_STATE_RUNNING for process in listing.processes)

        await eventually(all_have_ended, "a process without a linger ends with its call")


async def test_end_of_the_requests_is_no_end_of_the_input(stub: Stub) -> None:
    async with a_workspace(stub) as workspace:
        async with attached(stub, workspace, start=starting(argv("cat")), linger=seconds(60)) as first:
            process_id = (await first.until("started")).process_id
            await first.send(stdin=b"one ")
            await first.half_close()
            await first.until("output")
        target = pb.ProcessResume(process_id=process_id, offset=len(first.received))
        async with attached(stub, workspace, resume=target, take_input=True) as second:
            assert (await second.until("input")).offset == len(b"one ")
            await second.send(stdin=b"two")
            await second.send(end_of_input=pb.EndOfInput())
            assert (await second.until("exited")).termination.exit_code == 0
        assert (first.received, second.received) == (b"one ", b"two")


async def test_a_writer_that_is_busy_is_told_that_its_place_was_taken(service: ServedProcess, stub: Stub) -> None:
    """Where a message is being sent just then, gRPC for Python would forget the status."""
    connection = ChannelConnection(service.target)
    async with a_workspace(stub) as workspace:
        here = workspace.workspace_id

        async def endless() -> AsyncIterator[pb.AttachRequest]:
            yield pb.AttachRequest(open=pb.AttachOpen(workspace_id=here, start=starting(shell("sleep 60"))))
            while True:
                yield pb.AttachRequest(stdin=bytes(64 << 10))

        events = connection.stream(connection.stub.Attach, endless())
        resume = pb.ProcessResume(process_id=(await anext(events)).started.process_id)
        async with attached(stub, workspace, resume=resume, take_input=True) as second:
            await second.until("input")
            with pytest.raises(InputTakenError):
                async for _ in events:
                    pass
    await connection.aclose()


async def test_commands_that_end_at_once(stub: Stub, workspace: pb.Workspace) -> None:
    """Without a linger such a process is forgotten before its input can be opened, which its client is told first."""

    async def attach() -> bytes:
        async with attached(stub, workspace, start=pb.ProcessStart(command=shell("echo hi"))) as process:
            await process.until("started")
            assert (await process.until("input")).offset == 0
            assert process.received == b"", "output came first"
            await process.until("exited")
            return process.received

    assert await asyncio.gather(*(attach() for _ in range(48))) == [b"hi\n"] * 48


async def test_a_call_that_asks_for_nothing_is_ended(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its first message nobody has asked who calls: whoever reaches the service could have any number open."""
    monkeypatch.setattr(errors, "_OPENING_TIMEOUT", 0.2)
    async with serve(ServiceConfig(address=f"unix:{directory}/grpc.sock")) as target, connected(target) as stub:
        call: Any = stub.Attach(timeout=10)
        with refused(*INVALID) as caught:
            await call.read()
    assert "there was no message within 0.2 s" in caught.message
