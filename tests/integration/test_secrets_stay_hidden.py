"""A workspace's secrets are searched for where others can look: the engine, the service's files and log, /proc."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import grpc
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.engine import Engine
from tests.integration.lasting import KINDS, create, lasting, output
from tests.integration.wire import refused
from tests.support.engine_leaks import containers
from tests.support.proc import processes

VALUE = "s3cr3t-7Hq2-value"


@pytest.fixture
def ground(warm: None) -> None:
    """Nothing is asked of the shared service here."""


def in_directory(directory: Path) -> list[str]:
    """The files below a directory that hold the secret."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [str(path) for path in files if VALUE.encode() in path.read_bytes()]


def in_engine(engine: Engine, workspace_id: str) -> bool:
    """Whether the engine tells the secret of a workspace's container."""
    (container,) = containers(engine, f"agentic-isolation.workspace-id={workspace_id}")
    told = engine.api.json("GET", f"/containers/{container['Id']}/json")
    assert workspace_id in json.dumps(told)
    return VALUE in json.dumps(told)


@pytest.mark.parametrize("kind", KINDS)
async def test_secrets_are_found_nowhere_and_stay(kind: str, directory: Path, request: pytest.FixtureRequest) -> None:
    engine = None if kind == "local" else request.getfixturevalue("engine")
    async with lasting(directory, "--log-level", "debug") as service:
        asked = create(kind, request_id="one", secrets={"TOKEN": VALUE})
        async with service.running() as stub:
            workspace = (await stub.CreateWorkspace(asked)).workspace
            assert (
                await output(stub, workspace, "echo $TOKEN; sleep 30 </dev/null >/dev/null 2>&1 &")
                == f"{VALUE}\n".encode()
            )
            # A repeat is told from a request with another secret.
            assert (await stub.CreateWorkspace(asked)).workspace.workspace_id == workspace.workspace_id
            with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", field="request_id"):
                await stub.CreateWorkspace(create(kind, request_id="one", secrets={"TOKEN": VALUE + "x"}))
            with refused(grpc.StatusCode.NOT_FOUND, "PROGRAM_NOT_FOUND"):
                command = pb.Command(argv=pb.ArgumentList(args=["no-such-program"]))
                await stub.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=command))
            named = {"workspace_id": workspace.workspace_id}
            told = [
                await stub.GetWorkspace(pb.GetWorkspaceRequest(**named)),
                await stub.ListWorkspaces(pb.ListWorkspacesRequest()),
                await stub.ListProcesses(pb.ListProcessesRequest(**named)),
            ]
            assert not [answer for answer in told if VALUE in str(answer)]
            assert not [process for process in processes() if VALUE in process.arguments]
            assert engine is None or not in_engine(engine, workspace.workspace_id)
        log = await service.end(signal.SIGKILL)
        assert workspace.workspace_id in log
        assert VALUE not in log
        assert not in_directory(service.state)
        for path in service.state.glob("registry.db*"):
            path.unlink()  # the guest remembers which request has made the workspace
        async with service.running() as stub:
            assert await output(stub, workspace, "echo $TOKEN") == f"{VALUE}\n".encode()
            answer = await stub.Execute(
                pb.ExecuteRequest(
                    workspace_id=workspace.workspace_id,
                    command=pb.Command(shell="echo $TOKEN", redact_secrets=True),
                )
            )
            assert answer.stdout.head == b"***\n"
            assert (await stub.CreateWorkspace(asked)).workspace.workspace_id == workspace.workspace_id
