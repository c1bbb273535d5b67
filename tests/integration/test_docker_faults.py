"""A workspace's container is killed, removed, paused or full, under commands that run in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from agentic_isolation import (
    AgenticWorkspace,
    NoSpaceError,
    ResourceLimits,
    SecurityConfig,
    UnavailableError,
    WorkspaceLostError,
    WorkspaceNotFoundError,
)
from agentic_isolation.models import WorkspaceState
from agentic_isolation.service import ServiceClient
from agentic_isolation_service.guest.link import HANDSHAKE_TIMEOUT, SILENCE_TO_LOSE
from tests.engine import Engine
from tests.support.engine_leaks import container_of
from tests.support.eventually import eventually
from tests.support.jobs import new_mark, python, running, sleep_for_ever
from tests.support.service import ServedProcess
from tests.turns import WAITS

pytestmark = [pytest.mark.docker, WAITS]
RUNC = SecurityConfig(use_gvisor=False)
SOON = 2.0
"""Seconds within which a loss is told; it takes a few tenths."""

Fault = Callable[[Engine, str], object]


def kill(engine: Engine, container: str) -> None:
    engine.api.request("POST", f"/containers/{container}/kill")


def remove(engine: Engine, container: str) -> None:
    engine.api.request("DELETE", f"/containers/{container}", query={"force": "1", "v": "1"})


async def is_listed(client: ServiceClient, workspace_id: str, state: WorkspaceState | None) -> bool:
    listed = {workspace.id: workspace.state async for workspace in client.list_workspaces()}
    return listed.get(workspace_id) is state


@pytest.mark.parametrize("fault", [kill, remove])
async def test_container_that_is_ended_from_outside(
    engine: Engine, service: ServedProcess, security: SecurityConfig, fault: Fault
) -> None:
    """What runs says at once that the workspace is lost, and so does all that comes later; closing it is no trouble."""
    mark = new_mark()
    async with (
        ServiceClient(service.target) as client,
        AgenticWorkspace.create(security=security, lease=60, target=service.target) as ws,
    ):

        async def read() -> None:
            async for _ in ws.stream(["sleep", mark]):
                pass

        commands = [asyncio.create_task(ws.execute(sleep_for_ever(mark))), asyncio.create_task(read())]
        await running(ws, mark, 2)
        await asyncio.to_thread(fault, engine, container_of(engine, ws.id))
        ended_at = time.monotonic()
        outcomes = await asyncio.gather(*commands, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [WorkspaceLostError] * 2, outcomes
        assert time.monotonic() - ended_at < SOON
        for call in (ws.execute("true"), ws.write_file("file", ""), ws.read_file("file"), ws.files.list()):
            with pytest.raises(WorkspaceLostError, match=ws.id):
                await call
        assert time.monotonic() - ended_at < SOON
        assert await is_listed(client, ws.id, WorkspaceState.LOST)


async def test_container_that_is_started_anew(engine: Engine, service: ServedProcess, security: SecurityConfig) -> None:
    """By `docker restart`: a new guest with the same key, which knows nothing of what was asked of the one before."""
    mark = new_mark()
    async with AgenticWorkspace.create(security=security, lease=60, target=service.target) as ws:
        command = asyncio.create_task(ws.execute(sleep_for_ever(mark)))
        await running(ws, mark, 1)
        restart = f"/containers/{container_of(engine, ws.id)}/restart"
        await asyncio.to_thread(engine.api.request, "POST", restart, query={"t": "0"})
        with pytest.raises(WorkspaceLostError):
            await command
        with pytest.raises(WorkspaceLostError):
            await ws.execute("true")


async def test_lost_workspace_is_forgotten_when_its_lease_ends(engine: Engine, service: ServedProcess) -> None:
    """Its owner's renewals are in vain, and nobody has to destroy it."""
    async with (
        ServiceClient(service.target) as client,
        AgenticWorkspace.create(lease=2, security=RUNC, target=service.target) as ws,
    ):
        await asyncio.to_thread(kill, engine, container_of(engine, ws.id))
        await eventually(lambda: is_listed(client, ws.id, WorkspaceState.LOST), "it is listed as lost", within=SOON)
        await eventually(lambda: is_listed(client, ws.id, None), "it is listed no more")
        with pytest.raises(WorkspaceNotFoundError):
            await ws.execute("true")


async def test_paused_container(engine: Engine, service: ServedProcess) -> None:
    """Its silence is noticed, what cannot be reached is not lost, and afterwards everything is as before."""
    async with AgenticWorkspace.create(security=RUNC, lease=120, target=service.target, retry_timeout=0) as ws:
        await ws.write_file("kept", "by the workspace")
        container = container_of(engine, ws.id)
        command = asyncio.create_task(ws.execute(sleep_for_ever(new_mark())))
        await asyncio.to_thread(engine.api.request, "POST", f"/containers/{container}/pause")
        began = time.monotonic()
        try:
            with pytest.raises(UnavailableError, match=r"nothing came from the guest.*paused"):
                await command
            assert time.monotonic() - began < SILENCE_TO_LOSE + HANDSHAKE_TIMEOUT
            with pytest.raises(UnavailableError, match="paused"):
                await ws.execute("true")
        finally:
            await asyncio.to_thread(engine.api.request, "POST", f"/containers/{container}/unpause")
        assert await ws.read_file("kept") == b"by the workspace"


async def test_full_disk(service: ServedProcess, security: SecurityConfig) -> None:
    """Of a workspace: a command is told by its own system calls, a file operation by an error of its own."""
    limits = ResourceLimits(disk="4M")
    async with AgenticWorkspace.create(security=security, limits=limits, lease=60, target=service.target) as ws:
        await ws.write_file("small", b"x" * (1 << 20))
        with pytest.raises(NoSpaceError, match="big"):
            await ws.write_file("big", b"x" * (4 << 20))
        assert not await ws.file_exists("big")
        result = await ws.execute(python("open('big', 'wb').write(bytes(4 << 20))"))
        assert not result.success
        assert "No space left on device" in result.stderr
        await ws.files.remove("big")
        await ws.write_file("after", b"x" * (2 << 20))
        assert await ws.read_file("small") == b"x" * (1 << 20)
