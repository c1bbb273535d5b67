"""What the client repeats and what it does not, counted at a service that answers as it is told to."""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
import time
from collections.abc import AsyncIterator

import grpc
import pytest

from agentic_isolation import (
    AgenticWorkspace,
    DeadlineError,
    Exited,
    IsolationError,
    OffsetError,
    Output,
    OutputSource,
    ProcessEvent,
    ProcessNotFoundError,
    ProviderUnavailableError,
    ServiceClient,
    Started,
    Termination,
    TerminationCause,
    UnavailableError,
    WorkspaceFileNotFoundError,
    WorkspaceNotFoundError,
    _commands,
    _connection,
)
from agentic_isolation import _convert as convert
from agentic_isolation import _convert_runs as run_convert
from agentic_isolation._channel import ChannelConnection
from agentic_isolation.v1 import workspace_pb2 as pb
from tests.support.eventually import eventually
from tests.support.scripted_service import SILENCE, ScriptedService
from tests.turns import WAITS

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
AWAY = (UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""What an end of the far side looks like."""
OTHERS = [code for code in grpc.StatusCode if code not in (*AWAY, grpc.StatusCode.OK)]
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ENDING = Termination(cause=TerminationCause.EXITED, exit_code=0, signal=None, started_at=NOW, duration_ms=1)
STARTED = run_convert.event_to_pb(Started("p-1", NOW), pb.StreamResponse)
EXITED = run_convert.event_to_pb(Exited(ENDING), pb.StreamResponse)


def printed(offset: int, data: bytes) -> pb.StreamResponse:
    return run_convert.event_to_pb(Output(OutputSource.STDOUT, offset, data), pb.StreamResponse)


@pytest.fixture
async def ws(scripted: ScriptedService) -> AsyncIterator[AgenticWorkspace]:
    async with AgenticWorkspace.create(provider="local", target=scripted.target) as ws:
        yield ws


@pytest.mark.parametrize("code", OTHERS)
async def test_other_codes_are_no_reason(
    scripted: ScriptedService, ws: AgenticWorkspace, code: grpc.StatusCode
) -> None:
    for rpc in ("StatFile", "Execute"):
        scripted.will_answer(rpc, code)
    scripted.will_answer("Stream", [code])
    for call in (ws.files.stat("file"), ws.execute("true"), anext(ws.stream("true"))):
        with pytest.raises(IsolationError) as raised:
            await call
        assert not isinstance(raised.value, UnavailableError)
    for rpc in ("StatFile", "Execute", "Stream"):
        assert len(scripted.asked_for(rpc)) == 1


async def test_unavailable_is_repeated(scripted: ScriptedService, ws: AgenticWorkspace) -> None:
    """Whether the service, a proxy before it, or the engine behind it is."""
    scripted.will_answer("StatFile", UNAVAILABLE, UnavailableError("it drains"), ProviderUnavailableError("no engine"))
    await ws.files.stat("file")
    assert len(scripted.asked_for("StatFile")) == 4


async def test_repeats_of_a_command_are_one_request(scripted: ScriptedService, ws: AgenticWorkspace) -> None:
    scripted.will_answer("Execute", *[UNAVAILABLE] * 3)
    await ws.execute("true")
    first, *others = scripted.asked_for("Execute")
    assert others == [first] * 3
    assert first.request_id
    assert convert.duration_from_pb(first.linger) == 60
    await ws.execute("true")
    assert scripted.asked_for("Execute")[-1].request_id != first.request_id
    assert not scripted.asked_for("SignalProcess")


async def test_repeats_of_a_creation_are_one_request(scripted: ScriptedService) -> None:
    scripted.will_answer("CreateWorkspace", UNAVAILABLE, UNAVAILABLE)
    async with AgenticWorkspace.create(provider="local", target=scripted.target):
        first, *others = scripted.asked_for("CreateWorkspace")
        assert others == [first] * 2
        assert first.request_id


async def test_engine_that_is_not_there_is_told_at_once(scripted: ScriptedService) -> None:
    scripted.will_answer("CreateWorkspace", ProviderUnavailableError("no engine at unix:///nowhere"))
    with pytest.raises(ProviderUnavailableError, match=r"^no engine at unix:///nowhere$"):
        await AgenticWorkspace.create(provider="docker", target=scripted.target)
    assert len(scripted.asked_for("CreateWorkspace")) == 1


async def test_what_must_not_be_repeated_is_not(scripted: ScriptedService, ws: AgenticWorkspace) -> None:
    scripted.will_answer("MakeDirectory", UNAVAILABLE, UNAVAILABLE)
    with pytest.raises(UnavailableError):
        await ws.files.make_directory("d", parents=False)
    assert len(scripted.asked_for("MakeDirectory")) == 1
    await ws.files.make_directory("d")
    assert len(scripted.asked_for("MakeDirectory")) == 3


async def test_removal_that_was_carried_out_before(scripted: ScriptedService, ws: AgenticWorkspace) -> None:
    """Only a repeat may find nothing."""
    scripted.will_answer("RemoveFile", UNAVAILABLE, WorkspaceFileNotFoundError("gone"))
    await ws.files.remove("file")
    scripted.will_answer("RemoveFile", WorkspaceFileNotFoundError("was never there"))
    with pytest.raises(WorkspaceFileNotFoundError):
        await ws.files.remove("file")
    async with ServiceClient(scripted.target) as client:
        scripted.will_answer("DestroyWorkspace", UNAVAILABLE, WorkspaceNotFoundError("gone"))
        await client.destroy_workspace(ws.id)
        scripted.will_answer("DestroyWorkspace", WorkspaceNotFoundError("was never there"))
        with pytest.raises(WorkspaceNotFoundError):
            await client.destroy_workspace(ws.id)


async def test_retry_timeout(scripted: ScriptedService) -> None:
    """Pauses grow: some twenty attempts in the first seconds at the most, not hundreds."""
    scripted.will_answer("GetWorkspace", *[UNAVAILABLE] * 1000)
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"as it was told \(tried \d+ times in [12]\.\d s\)"):
        await AgenticWorkspace.connect("ws-1", target=scripted.target, retry_timeout=1.5)
    assert 1.4 < time.monotonic() - began < 4
    assert 3 < len(scripted.asked_for("GetWorkspace")) < 40


@pytest.mark.parametrize("answer", [UNAVAILABLE, SILENCE])
async def test_deadline_of_a_call(scripted: ScriptedService, answer: object) -> None:
    """It bounds all attempts together. What was heard last is told."""
    scripted.will_answer("StatFile", *[answer] * 1000)
    connection = ChannelConnection(scripted.target, retry_timeout=60)
    began = time.monotonic()
    with pytest.raises(UnavailableError if answer is UNAVAILABLE else DeadlineError):
        await connection.call(connection.stub.StatFile, pb.StatFileRequest(), timeout=1)
    assert time.monotonic() - began < 3
    await connection.aclose()


async def test_silence_is_not_waited_for_for_ever(
    scripted: ScriptedService, ws: AgenticWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_connection, "ATTEMPT_TIMEOUT", 0.3)
    scripted.will_answer("StatFile", SILENCE, SILENCE)
    await ws.files.stat("file")
    assert len(scripted.asked_for("StatFile")) == 3


async def test_silence_to_the_end_of_a_call(scripted: ScriptedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last attempt has less time than others, and its end says as much as theirs."""
    monkeypatch.setattr(_connection, "ATTEMPT_TIMEOUT", 0.5)
    monkeypatch.setattr(_connection, "CALL_TIMEOUT", 0.9)
    scripted.will_answer("StatFile", *[SILENCE] * 100)
    connection = ChannelConnection(scripted.target, retry_timeout=0.8)
    with pytest.raises(UnavailableError, match=r"has not answered for .* \(tried 2 times in 0\.\d s\)"):
        await connection.call(connection.stub.StatFile, pb.StatFileRequest())
    await connection.aclose()


async def test_command_that_is_waited_for_in_vain_is_killed(
    scripted: ScriptedService, ws: AgenticWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_commands, "CALL_TIMEOUT", 0.3)
    scripted.will_answer("Execute", SILENCE)
    with pytest.raises(DeadlineError):
        await ws.execute("true", timeout=0.1)
    (request,) = scripted.asked_for("Execute")
    (kill,) = scripted.asked_for("SignalProcess")
    assert kill == pb.SignalProcessRequest(
        workspace_id=ws.id, request_id=request.request_id, signal=signal.SIGKILL, tree=True
    )


@pytest.mark.parametrize(
    "answer",
    [grpc.StatusCode.UNIMPLEMENTED, ProcessNotFoundError("none"), WorkspaceNotFoundError("none"), UNAVAILABLE, None],
)
async def test_cancellation(scripted: ScriptedService, ws: AgenticWorkspace, answer: object) -> None:
    """Whatever the service knows about killing: the command's linger ends it otherwise."""
    if answer is not None:
        scripted.will_answer("SignalProcess", answer)
    scripted.will_answer("Execute", UNAVAILABLE, SILENCE)
    running = asyncio.create_task(ws.execute("true"))
    await eventually(lambda: len(scripted.asked_for("Execute")) == 2, "it is repeated")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(scripted.asked_for("SignalProcess")) == (2 if answer is UNAVAILABLE else 1)


async def test_stream_whose_start_is_repeated(scripted: ScriptedService, ws: AgenticWorkspace) -> None:
    scripted.will_answer("Stream", [UNAVAILABLE], [UNAVAILABLE], [STARTED, printed(0, b"line\n"), EXITED])
    assert [line async for line in ws.stream("true")] == ["line"]
    first, *others = scripted.asked_for("Stream")
    assert others == [first] * 2
    assert first.request_id
    assert not scripted.asked_for("SignalProcess")


async def test_stream_that_is_resumed(scripted: ScriptedService, ws: AgenticWorkspace) -> None:
    """At the next byte, lost ones counted; also where a call ends well and too early."""
    gap = pb.StreamResponse(gap=pb.OutputGap(lost_bytes=7))
    scripted.will_answer(
        "Stream",
        [STARTED, printed(0, b"one "), UNAVAILABLE],
        [UNAVAILABLE],
        [STARTED, printed(4, b"two "), gap],
        [STARTED, UNAVAILABLE],
        [STARTED, printed(15, b"three"), EXITED, UNAVAILABLE],
    )
    events: list[ProcessEvent] = [event async for event in ws.stream("true").events()]
    assert [type(event).__name__ for event in events] == ["Started", "Output", "Output", "Gap", "Output", "Exited"]
    _, *resumed = scripted.asked_for("Stream")
    places = [(request.resume.process_id, request.resume.offset) for request in resumed]
    assert places == [("p-1", 4), ("p-1", 4), ("p-1", 15), ("p-1", 15)]
    assert not scripted.asked_for("SignalProcess")


@pytest.mark.parametrize("error", [ProcessNotFoundError("forgotten"), OffsetError("not written")])
async def test_stream_that_cannot_be_resumed(
    scripted: ScriptedService, ws: AgenticWorkspace, error: IsolationError
) -> None:
    """What is not known to be over is killed."""
    scripted.will_answer("Stream", [STARTED, printed(0, b"line\n"), UNAVAILABLE], [error])
    stream = ws.stream("true")
    assert await anext(stream) == "line"
    with pytest.raises(type(error), match=str(error)):
        await anext(stream)
    assert len(scripted.asked_for("SignalProcess")) == isinstance(error, OffsetError)


@WAITS
async def test_a_renewal_that_is_not_answered_leaves_time_for_another(scripted: ScriptedService) -> None:
    lease = 6.0
    scripted.will_answer("RenewWorkspace", SILENCE)
    async with AgenticWorkspace.create(provider="local", lease=lease, target=scripted.target):
        made = time.monotonic()
        await eventually(lambda: len(scripted.asked_for("RenewWorkspace")) > 1, "it is renewed again", within=lease + 5)
        assert time.monotonic() - made < lease - 0.5
