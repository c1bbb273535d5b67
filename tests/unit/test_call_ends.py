"""What is left of a call when it has ended, in the tasks that it has begun: nothing but who has called."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass

from agentic_isolation import InvalidArgumentError
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.core.caller import Caller
from agentic_isolation_service.rpc.call_logs import CallFields
from agentic_isolation_service.rpc.calls import Call, current_call, current_caller, surrounded
from agentic_isolation_service.rpc.outcome import code_of, subject_of
from agentic_isolation_service.telemetry.calls import CallMetrics
from tests.support.messages import METHODS

CALLER = Caller(identity="somebody", tenant="them")


class Context:
    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", "hush"),)


def a_call(method: str = "CreateWorkspace", request: Any = None) -> Call:
    context: Any = Context()
    return Call(method, context, caller=CALLER, request=request)


async def test_tasks_of_a_call_outlive_it_without_its_request() -> None:
    call = a_call(request=pb.CreateWorkspaceRequest(secrets={"KEY": "hush"}))
    ended = asyncio.Event()

    async def look() -> tuple[Call | None, Caller, Call | None]:
        during = current_call()
        await ended.wait()
        return during, current_caller(), current_call()

    async with surrounded(call, ()):
        task = asyncio.create_task(look())
        await asyncio.sleep(0)
    ended.set()
    assert await task == (call, CALLER, None)
    kept: list[object] = [call.request, call.response, call.first_response, call.context]
    assert kept == [None] * 4


async def test_records_have_the_fields_of_their_call_unless_they_have_their_own() -> None:
    def record(**own: str) -> dict[str, Any]:
        made = logging.makeLogRecord(own)
        before = vars(made).keys() - own.keys()
        assert CallFields().filter(made)
        return {name: value for name, value in vars(made).items() if name not in before}

    assert record() == {}
    async with surrounded(a_call("StatFile", pb.StatFileRequest(workspace_id="ws-1")), ()):
        fields = {"method": "StatFile", "identity": "somebody", "tenant": "them", "workspace_id": "ws-1"}
        assert record() == fields
        assert record(workspace_id="ws-2") == fields | {"workspace_id": "ws-2"}


def test_what_calls_are_about() -> None:
    def about(method: str, request: Any, response: Any = None) -> tuple[str, str]:
        call = a_call(method, request)
        call.first_response = response
        return subject_of(call)

    created = pb.CreateWorkspaceResponse(workspace=pb.Workspace(workspace_id="ws-1"))
    assert about("CreateWorkspace", pb.CreateWorkspaceRequest(request_id="one"), created) == ("ws-1", "")
    assert about("CreateWorkspace", pb.CreateWorkspaceRequest()) == ("", "")
    assert about("ListWorkspaces", pb.ListWorkspacesRequest()) == ("", "")
    assert about("Attach", None) == ("", "")
    resumed = pb.AttachRequest(open=pb.AttachOpen(workspace_id="ws-1", resume=pb.ProcessResume(process_id="p-1")))
    assert about("Attach", resumed) == ("ws-1", "p-1")
    named, started = pb.StreamRequest(workspace_id="ws-1", request_id="one"), pb.ProcessStarted(process_id="p-2")
    assert about("Stream", named)[1].startswith("r-")
    assert about("Stream", pb.StreamRequest(request_id="no id")) == ("", "")
    assert about("Stream", pb.StreamRequest(), pb.StreamResponse(started=started)) == ("", "p-2")
    header = pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id="ws-1"))
    assert about("WriteFile", header) == ("ws-1", "")


def test_codes() -> None:
    assert code_of(None) == "OK"
    assert code_of(InvalidArgumentError("")) == "INVALID_ARGUMENT"
    assert code_of(asyncio.CancelledError()) == "CANCELLED"
    assert code_of(KeyError()) == "INTERNAL"
    assert code_of(asyncio.CancelledError(), answered=True) == "OK"
    assert code_of(InvalidArgumentError(""), answered=True) == "INVALID_ARGUMENT"


_ENDLESS = {"WatchDirectory"}


@pytest.mark.parametrize("method", sorted({n for n, m in METHODS.items() if m.server_streaming} - _ENDLESS))
async def test_stream_is_answered_with_its_last_response(method: str) -> None:
    """A client that cancels the call then, as ours does, has all that it has asked for."""
    response = METHODS[method].output_type
    last = []
    for field in response.fields:
        call = a_call(method)
        await call.give(GetMessageClass(response)(**{field.name: {} if field.message_type else b"1"}))
        if call.answered:
            last.append(field.name)
    assert last in (["exited"], ["end"], ["image"])


async def test_call_that_is_cancelled_after_its_last_response_counts_as_answered() -> None:
    metrics = CallMetrics()
    for response, code in (
        (pb.ReadFileResponse(data=b"1"), "CANCELLED"),
        (pb.ReadFileResponse(end=pb.ReadFileEnd()), "OK"),
    ):
        call = a_call("ReadFile")

        async def given(call: Call = call, response: Any = response) -> None:
            async with surrounded(call, [metrics]):
                await call.give(response)
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await given()
        counted = {sample.labels["code"] for sample in next(metrics.families()).samples}
        assert code in counted
