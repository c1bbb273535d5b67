"""Which trace a command belongs to: what its client tells is passed on into its environment."""

from __future__ import annotations

import grpc
import pytest
from opentelemetry import trace

from agentic_isolation import AgenticWorkspace, WorkspaceConfig, WorkspaceLocalProvider
from agentic_isolation.sync import Workspace
from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.lasting import execute
from tests.integration.wire import EventReader, Stub, a_workspace, refused, shell, start
from tests.support.service import ServedProcess
from tests.support.spans import active_span

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
TELL = 'echo "$TRACEPARENT|$TRACESTATE"'


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ((("traceparent", PARENT),), f"{PARENT}|"),
        ((("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2, c@d=3")), f"{PARENT}|a=1,b=2,c@d=3"),
        ((("traceparent", PARENT), ("tracestate", "no members")), f"{PARENT}|"),
        ((("traceparent", PARENT), ("tracestate", ",".join(f"k{n}=v" for n in range(33)))), f"{PARENT}|"),
        ((("traceparent", PARENT), ("tracestate", "k=" + "v" * 600)), f"{PARENT}|"),
        ((("traceparent", PARENT.replace("00-", "cc-", 1) + "-later"),), f"{PARENT}|"),
        ((("tracestate", "a=1"),), "|"),
        ((("traceparent", PARENT + "-more"),), "|"),
        ((("traceparent", PARENT.upper()),), "|"),
        ((("traceparent", PARENT.replace("00-", "ff-", 1)),), "|"),
        ((("traceparent", PARENT.replace(TRACE, "0" * 32)),), "|"),
        ((("traceparent", PARENT.replace(SPAN, "0" * 16)),), "|"),
        ((("traceparent", "$(touch here)"),), "|"),
        ((), "|"),
    ],
)
async def test_service_without_traces_passes_its_clients_on(
    stub: Stub, workspace: pb.Workspace, metadata: tuple[tuple[str, str], ...], told: str
) -> None:
    answer = await stub.Execute(execute(workspace, TELL), metadata=metadata)
    assert answer.stdout.head.decode() == told + "\n"


async def test_every_way_to_start_a_command_tells_it(stub: Stub, workspace: pb.Workspace) -> None:
    metadata = (("traceparent", PARENT),)
    stream = stub.Stream(start(workspace, shell(TELL)), metadata=metadata)
    events = [event async for event in stream]
    assert events[1].output.data.decode() == f"{PARENT}|\n"

    opening = pb.AttachOpen(
        workspace_id=workspace.workspace_id, start=pb.ProcessStart(command=shell(TELL)), read_only=True
    )
    attach = stub.Attach(iter([pb.AttachRequest(open=opening)]), metadata=metadata)
    outputs = [event.output.data async for event in attach if event.WhichOneof("event") == "output"]
    assert b"".join(outputs).decode() == f"{PARENT}|\n"


async def test_what_the_caller_sets_wins(stub: Stub) -> None:
    metadata = (("traceparent", PARENT), ("tracestate", "a=1"))
    own = {"TRACEPARENT": "my own"}
    async with a_workspace(stub) as workspace:
        command = shell(TELL, environment=own)
        request = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=command)
        assert (await stub.Execute(request, metadata=metadata)).stdout.head == b"my own|\n"
    async with a_workspace(stub, environment=own) as workspace:
        assert (await stub.Execute(execute(workspace, TELL), metadata=metadata)).stdout.head == b"my own|\n"


async def test_request_is_the_same_in_another_trace(stub: Stub, workspace: pb.Workspace) -> None:
    """What comes again, from a client's or a mesh's retry, comes with another span."""
    request = execute(workspace, TELL, request_id="traced")
    first = await stub.Execute(request, metadata=(("traceparent", PARENT),))
    again = await stub.Execute(request, metadata=(("traceparent", PARENT.replace(SPAN, SPAN[::-1])),))
    untraced = await stub.Execute(request)
    assert first == again == untraced
    async with EventReader(stub, start(workspace, shell("true"), request_id="traced")) as other:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "request_id"):
            await other.next()


async def test_embedded_and_direct_ways_in() -> None:
    with active_span() as maker:  # the service begins with it, and has nothing of it
        workspace = await AgenticWorkspace.create(provider="local")
    try:
        with active_span() as agent:
            assert (await workspace.execute("echo $TRACEPARENT")).stdout == f"{agent}\n"
        assert maker != agent
        assert (await workspace.execute("echo $TRACEPARENT")).stdout == "\n"
    finally:
        await workspace.close()
    provider = WorkspaceLocalProvider()
    made = await provider.create(WorkspaceConfig(provider="local"))
    try:
        with active_span() as agent:
            assert (await provider.execute(made, "echo $TRACEPARENT")).stdout == f"{agent}\n"
            lines = [line async for line in provider.stream(made, "echo $TRACEPARENT")]
            assert lines == [f"{agent}"]
    finally:
        await provider.destroy(made)
    assert not trace.get_current_span().get_span_context().is_valid


def test_programs_without_an_event_loop(service: ServedProcess) -> None:
    with Workspace.create(provider="local", target=service.target) as workspace, active_span() as agent:
        assert workspace.execute("echo $TRACEPARENT").stdout == f"{agent}\n"
