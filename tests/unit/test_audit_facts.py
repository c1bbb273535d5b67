"""What an audit log says of calls: for every RPC something, and of no RPC any content."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from google.protobuf.message_factory import GetMessageClass

from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.audit.facts import facts_of
from agentic_isolation_service.core.replicas import Replica
from agentic_isolation_service.rpc.calls import Call
from tests.support.messages import METHODS, filled

MARKER = "M4rk3r/of content@"
WORKSPACE, PROCESS = "ws-" + "a" * 20, "p-" + "0" * 16
NAMED_BY_THE_SERVICE = {"image", "runtime", "process", "workspace"}
"""What a response tells is the service's word, and may be written down as it is."""


def call(method: str, request: Any = None, response: Any = None, first: Any = None) -> Call:
    return Call(method, cast("Any", None), request=request, response=response, first_response=first or response)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_of_what_a_caller_sends_is_written_down(method: str) -> None:
    for request in filled(METHODS[method].input_type, MARKER):
        assert MARKER not in json.dumps(facts_of(call(method, request))), request


@pytest.mark.parametrize("method", METHODS)
def test_of_answers_only_names_and_numbers_are_written_down(method: str) -> None:
    for response in filled(METHODS[method].output_type, MARKER):
        facts = facts_of(call(method, response=response))
        what = cast("dict[str, object]", facts.pop("what", {}))
        rest = {name: value for name, value in (facts | what).items() if name not in NAMED_BY_THE_SERVICE}
        assert MARKER not in json.dumps(rest), response


@pytest.mark.parametrize("method", METHODS)
def test_calls_that_ask_for_nothing_and_answer_nothing_have_facts_too(method: str) -> None:
    descriptor = METHODS[method]
    assert facts_of(call(method)) == {}
    request, response = (GetMessageClass(kind)() for kind in (descriptor.input_type, descriptor.output_type))
    json.dumps(facts_of(call(method, request, response)))


def test_a_workspace_of_a_replica_is_named_too() -> None:
    for workspace in (Replica("eu-1").new_id(), Replica().new_id()):
        assert facts_of(call("StatFile", pb.StatFileRequest(workspace_id=workspace)))["workspace"] == workspace
    for other in (f"ws-eu_1-{'a' * 20}", f"ws-{'e' * 21}-{'a' * 20}", f"ws-eu-1-{'a' * 20}\n", "ws-eu-1"):
        assert "workspace" not in facts_of(call("StatFile", pb.StatFileRequest(workspace_id=other)))


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"CreateWorkspace", "ListWorkspaces", "PullImage"}))
def test_the_workspace_is_named(method: str) -> None:
    if method == "GetServerInfo":
        return
    for request in filled(METHODS[method].input_type, WORKSPACE):
        if method in ("Attach", "WriteFile", "WriteArchive") and request.ListFields()[0][0].name not in (
            "open",
            "header",
        ):
            continue
        assert facts_of(call(method, request))["workspace"] == WORKSPACE


def test_what_was_asked_of_a_workspace_is_told() -> None:
    request = pb.CreateWorkspaceRequest(
        provider="docker",
        image="python:3.12-slim",
        environment={"A": "b"},
        secrets={"C": "d", "E": "f"},
        security=pb.SecurityConfig(use_gvisor=False, user="0:0"),
        limits=pb.ResourceLimits(memory_bytes=1 << 30, network=pb.NETWORK_MODE_OUTBOUND),
        labels={"team": "x"},
        mounts=[
            pb.Mount(source="/srv/models", target="/hidden"),
            pb.Mount(source="/srv/cache", target="/hidden", read_only=False),
            pb.Mount(source="anything\n", target="/hidden"),
        ],
    )
    assert facts_of(call("CreateWorkspace", request)) == {
        "what": {
            "provider": "docker",
            "image": "python:3.12-slim",
            "security": {"use_gvisor": False, "user": "0:0"},
            "limits": {"memory_bytes": 1 << 30, "network": "outbound"},
            "mounts": ["/srv/models:ro", "/srv/cache:rw", "?:ro"],
            "environment_count": 1,
            "secrets_count": 2,
        }
    }


def test_how_a_command_has_ended_is_told() -> None:
    ended = pb.Termination(exit_code=3, cause=pb.TERMINATION_CAUSE_EXITED)
    killed = pb.Termination(signal=9, cause=pb.TERMINATION_CAUSE_TIMEOUT)
    executed = pb.ExecuteResponse(process_id=PROCESS, termination=ended, stdout=pb.CapturedOutput(total_bytes=5))
    request = pb.ExecuteRequest(workspace_id=WORKSPACE, command=pb.Command(shell="cat", stdin=b"12345"))
    assert facts_of(call("Execute", request, executed)) == {
        "workspace": WORKSPACE,
        "process": PROCESS,
        "termination": {"cause": "EXITED", "exit_code": 3},
        "what": {"stdin_bytes": 5, "stdout_bytes": 5, "stderr_bytes": 0},
    }
    started = pb.StreamResponse(started=pb.ProcessStarted(process_id=PROCESS))
    exited = pb.StreamResponse(exited=pb.ProcessExited(termination=killed))
    streamed = facts_of(call("Stream", None, exited, started))
    assert streamed == {"process": PROCESS, "termination": {"cause": "TIMEOUT", "signal": 9}}
    assert facts_of(call("Stream", None, started, started)) == {"process": PROCESS}


def test_a_request_tells_its_process_before_that_has_started() -> None:
    request = pb.ExecuteRequest(workspace_id=WORKSPACE, request_id="one")
    assert str(facts_of(call("Execute", request))["process"]).startswith("r-")
    assert "process" not in facts_of(call("Execute", pb.ExecuteRequest(request_id="\0")))
