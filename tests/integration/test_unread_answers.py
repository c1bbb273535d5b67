"""A client that asks for much and takes none of it costs a bounded amount of memory, and nobody else anything."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.core.overload import MOST_UNSENT
from tests.integration.tenancy import stub_of, tenant_table, token_of, token_table
from tests.integration.wire import Stub, a_workspace, argv, connected
from tests.support import proc
from tests.support.eventually import eventually
from tests.support.program import Program
from tests.support.service import ServedProcess
from tests.support.unreading_client import OUTPUT

COUNT = MOST_UNSENT // OUTPUT + 5
"""Answers that are more than may wait. Fewer commands than are refused when many begin at once."""
TIMES = 3
"""How much memory an answer takes while it waits: Python has it, gRPC has a copy, and the allocator takes its share."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedProcess]:
    config = tmp_path / "config.toml"
    local = 'providers = ["local"]'
    config.write_text("".join(token_table(name) + tenant_table(name, local) for name in ("idle", "prompt")))
    with ServedProcess("--address", "127.0.0.1:0", "--config", str(config)) as served:
        yield served


async def test_answers_that_nobody_takes(served: ServedProcess) -> None:
    async with connected(served.target) as stub:
        idle, prompt = stub_of(stub, "idle"), stub_of(stub, "prompt")
        async with a_workspace(idle) as workspace, a_workspace(prompt) as other:
            before = proc.resident_bytes(served.pid)
            with Program(
                "tests.support.unreading_client",
                *(served.target, token_of("idle"), workspace.workspace_id, str(COUNT)),
                name="a client that does not read",
            ) as client:
                client.process.send_signal(signal.SIGSTOP)
                await eventually(lambda: is_refused(idle, workspace), "its tenant is refused")
                assert proc.resident_bytes(served.pid) - before < COUNT * OUTPUT * TIMES
                await execute(prompt, other)
                assert client.process.stdout is not None
                client.process.send_signal(signal.SIGCONT)
                assert int(await asyncio.to_thread(client.process.stdout.readline)) == COUNT, "each of them is kept"
            await execute(idle, workspace)


async def execute(stub: Stub, workspace: pb.Workspace) -> None:
    await stub.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=argv("true")))


async def is_refused(stub: Stub, workspace: pb.Workspace) -> bool:
    try:
        await execute(stub, workspace)
    except grpc.aio.AioRpcError as error:
        return "bytes of answers wait to be taken" in str(error.details())
    return False
