"""What a service logs of calls, as programs read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.lasting import create
from tests.integration.wire import EventReader, a_workspace, connected, host_file, refused, seconds, shell, start
from tests.support.eventually import eventually
from tests.support.service import ServedProcess

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def talkative(private_temporary_directory: Path) -> Iterator[ServedProcess]:
    address = f"unix:{private_temporary_directory}/talkative.sock"
    with ServedProcess("--address", address, "--log-level", "debug", "--log-json") as service:
        yield service


@pytest.fixture
def ground(warm: None, talkative: ServedProcess) -> None:
    """Both services are up before accounts are taken."""


def events(service: ServedProcess, **fields: str) -> list[dict[str, Any]]:
    """Returns what a service has logged that has these fields."""
    logged = [json.loads(line) for line in service.log.splitlines()]
    return [event for event in logged if fields.items() <= event.items()]


async def ended(service: ServedProcess, **fields: str) -> dict[str, Any]:
    """Waits for the line of a call that has ended."""
    await eventually(lambda: events(service, event="call ended", **fields), f"there is a line of {fields}")
    [event] = events(service, event="call ended", **fields)
    event.pop("timestamp")
    return event


async def test_each_call_has_a_line(talkative: ServedProcess) -> None:
    async with connected(talkative.target) as stub, a_workspace(stub, secrets={"KEY": "hush-hush"}) as workspace:
        workspace_id = workspace.workspace_id
        metadata = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"), ("authorization", "Bearer hush-hush"))
        command = shell("cat; : hush-hush", stdin=b"hush-hush", environment={"A": "hush-hush"})
        answer = await stub.Execute(pb.ExecuteRequest(workspace_id=workspace_id, command=command), metadata=metadata)
        event = await ended(talkative, method="Execute", workspace_id=workspace_id)
        assert 0 < event.pop("duration_ms") < 10_000
        assert event == {
            "level": "debug",
            "event": "call ended",
            "code": "OK",
            "method": "Execute",
            "identity": "operator",
            "workspace_id": workspace_id,
            "process_id": answer.process_id,
            "trace_id": TRACE,
        }
        async with EventReader(stub, start(workspace, shell("sleep 60"))) as stream:
            await stream.until("started")
        event = await ended(talkative, method="Stream", workspace_id=workspace_id)
        assert (event["code"], event["process_id"]) == ("CANCELLED", stream.process_id)

        async def upload() -> Any:
            yield pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id=workspace_id, path="hush-hush"))
            yield pb.WriteFileRequest(data=b"hush-hush")
            yield pb.WriteFileRequest(end=pb.WriteFileEnd())

        await stub.WriteFile(upload())
        assert host_file(workspace, "hush-hush").exists()
        assert (await ended(talkative, method="WriteFile", workspace_id=workspace_id))["code"] == "OK"
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "path"):
            await stub.StatFile(pb.StatFileRequest(workspace_id=workspace_id))
        assert (await ended(talkative, method="StatFile", workspace_id=workspace_id))["code"] == "INVALID_ARGUMENT"
        named = "ws-\n" + "x" * 1000
        with refused(grpc.StatusCode.NOT_FOUND, "WORKSPACE_NOT_FOUND"):
            await stub.GetWorkspace(pb.GetWorkspaceRequest(workspace_id=named))
        assert (await ended(talkative, method="GetWorkspace"))["workspace_id"] == named[:64]
    assert "hush-hush" not in talkative.log


async def test_what_a_call_has_begun_is_not_told_as_its_own_for_ever(talkative: ServedProcess) -> None:
    async with connected(talkative.target) as stub:
        workspace = (await stub.CreateWorkspace(create("local", lease_duration=seconds(1)))).workspace
        await eventually(
            lambda: events(talkative, event="workspace created", workspace_id=workspace.workspace_id),
            "its making has its line",
        )
        [made] = events(talkative, event="workspace created", workspace_id=workspace.workspace_id)
        assert (made["method"], made["identity"]) == ("CreateWorkspace", "operator")
        await eventually(
            lambda: events(talkative, event="a workspace's time is over", workspace_id=workspace.workspace_id),
            "the lease has run out",
        )
        [over] = events(talkative, event="a workspace's time is over", workspace_id=workspace.workspace_id)
        assert not {"method", "identity", "trace_id"} & over.keys()
