"""A service with a state directory, killed and started again by a test: what it has made outlives its processes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.engine import Engine
from tests.integration.wire import Stub, connected, seconds, shell
from tests.support.engine_leaks import containers
from tests.support.eventually import eventually
from tests.support.failpoints import ORDERS_VARIABLE
from tests.support.proc import belonging_to
from tests.support.program import python_environment
from tests.support.service import ServedProcess

KINDS = [
    "local",
    pytest.param("runc", marks=pytest.mark.docker),
    pytest.param("gvisor", marks=[pytest.mark.docker, pytest.mark.gvisor]),
]
"""What workspaces may be made of, for parametrize."""
LINGER = seconds(60)
_STOP_TIMEOUT = 30
_REFUSED = 125


def create(kind: str, **fields: Any) -> pb.CreateWorkspaceRequest:
    """Returns the request for a workspace of a kind."""
    settings: dict[str, Any] = {"lease_duration": LINGER} | fields
    if kind == "local":
        return pb.CreateWorkspaceRequest(provider="local", **settings)
    return pb.CreateWorkspaceRequest(
        provider="docker", security=pb.SecurityConfig(use_gvisor=kind == "gvisor"), **settings
    )


def execute(workspace: pb.Workspace, line: str, **fields: Any) -> pb.ExecuteRequest:
    """Returns the request that runs a line."""
    return pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell(line), **fields)


async def output(stub: Stub, workspace: pb.Workspace, line: str) -> bytes:
    """Runs a line and returns what it has printed."""
    return bytes((await stub.Execute(execute(workspace, line))).stdout.head)


async def written(stub: Stub, workspace: pb.Workspace, name: str) -> None:
    """Waits until a workspace has a file with something in it."""
    await eventually(lambda: _has(stub, workspace, name), f"{name} is written")


async def _has(stub: Stub, workspace: pb.Workspace, name: str) -> bool:
    return await output(stub, workspace, f"test -s {name} && echo yes") == b"yes\n"


async def listed(stub: Stub) -> dict[str, pb.Workspace]:
    """Returns all workspaces by their ids."""
    answer = await stub.ListWorkspaces(pb.ListWorkspacesRequest())
    return {workspace.workspace_id: workspace for workspace in answer.workspaces}


async def destroy(stub: Stub, *workspace_ids: str) -> None:
    """Destroys workspaces."""
    for workspace_id in workspace_ids:
        await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace_id))


def place_is_left(directory: Path, workspace: pb.Workspace, engine: Engine | None) -> bool:
    """Whether anything of a workspace is left."""
    if engine is None:
        return Path(workspace.host_path).exists() or bool(belonging_to(directory / "state" / "w"))
    return bool(containers(engine, f"agentic-isolation.workspace-id={workspace.workspace_id}"))


class LastingService:
    """A service that keeps its state in a directory.

    Args:
        directory: Where it listens and keeps its state.
        options: More options of `serve`.
        failing: Whether it fails where tests/support/failpoints.py is told to.
    """

    def __init__(self, directory: Path, *options: str, failing: bool = False) -> None:
        directory.mkdir(exist_ok=True)
        self.state = directory / "state"
        self._module = "tests.support.failpoints" if failing else "agentic_isolation_service"
        self._environment = {ORDERS_VARIABLE: str(directory)} if failing else {}
        command = ["serve"] if failing else []
        self._options = [
            *(*command, "--address", f"unix:{directory}/grpc.sock", "--state-dir", str(self.state), *options)
        ]
        self._process: ServedProcess | None = None

    @property
    def runs(self) -> bool:
        """Whether it was started, and its end not awaited yet."""
        return self._process is not None

    @property
    def process(self) -> ServedProcess:
        """The process that it runs as now."""
        assert self._process is not None, "it does not run"
        return self._process

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Stub]:
        """Starts it unless it runs, and yields its stub; on the way out it goes on."""
        if self._process is None:
            self._process = await asyncio.to_thread(
                ServedProcess, *self._options, module=self._module, environment=self._environment
            )
        async with connected(self._process.target) as stub:
            yield stub

    async def refused(self) -> str:
        """Starts it where it must not come up, and returns what it says about that."""
        refused = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._module, "serve", *self._options),
            env=python_environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complaint = await refused.communicate()
        assert (refused.returncode, said) == (_REFUSED, b""), complaint.decode()
        assert b"Traceback" not in complaint
        return complaint.decode()

    async def end(self, number: int) -> str:
        """Sends the process a signal, waits for its end, and returns what it has logged."""
        self.process.process.send_signal(number)
        _, log = await self.ended()
        return log

    async def ended(self) -> tuple[int, str]:
        """Waits for the process's end, and returns its exit code and what it has logged."""
        process = self.process
        code = await asyncio.to_thread(process.process.wait, _STOP_TIMEOUT)
        log = process.log
        process.kill()
        self._process = None
        assert "Traceback" not in log
        return code, log

    async def aclose(self) -> None:
        """Destroys what it holds and ends it."""
        try:
            async with self.running() as stub:
                for workspace_id in await listed(stub):
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await destroy(stub, workspace_id)
        finally:
            if self._process is not None:
                await asyncio.to_thread(self._process.stop)
                self._process = None


@contextlib.asynccontextmanager
async def lasting(directory: Path, *options: str, failing: bool = False) -> AsyncIterator[LastingService]:
    """Yields a service that does not run yet, and destroys what it holds in the end."""
    service = LastingService(directory, *options, failing=failing)
    try:
        yield service
    finally:
        await service.aclose()
