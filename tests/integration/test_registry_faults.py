"""The registry is full, read-only, locked, damaged, newer, lost. No workspace is destroyed for that, or made unseen."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.lasting import LINGER, LastingService, create, destroy, execute, lasting, listed, output
from tests.integration.wire import Stub, host_file, refused, seconds
from tests.support.eventually import eventually
from tests.turns import WAITS

pytestmark = WAITS
RUN = "echo run >> runs; echo $COLOUR"
ROOM = "1m"
RENEWED = 600
"""Seconds of the lease as it was renewed: ten times what the workspace was made with."""


@pytest.fixture
def ground(warm: None) -> None:
    """Nothing is asked of the shared service here."""


@pytest.fixture
async def mine(directory: Path) -> AsyncIterator[LastingService]:
    """The service whose registry is damaged."""
    async with lasting(directory) as service:
        yield service


@contextlib.contextmanager
def small(path: Path) -> Iterator[None]:
    """Gives a directory a small file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system that can be filled needs root")
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def fill(path: Path) -> Path:
    """Fills a file system to its last byte, and returns the file that does so."""
    filling = path / "filling"
    with contextlib.suppress(OSError), filling.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)
    return filling


@contextlib.contextmanager
def locked(registry: Path) -> Iterator[None]:
    """Another program writes, and does not come to an end."""
    with contextlib.closing(sqlite3.connect(registry, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")


async def made(stub: Stub) -> tuple[pb.Workspace, pb.ExecuteRequest]:
    """Makes a workspace in which a command has run, and renews its lease."""
    workspace = (await stub.CreateWorkspace(_wanted())).workspace
    request = execute(workspace, RUN, request_id="one", linger=LINGER)
    assert (await stub.Execute(request)).stdout.head == b"green\n"
    await stub.RenewWorkspace(
        pb.RenewWorkspaceRequest(workspace_id=workspace.workspace_id, lease_duration=seconds(RENEWED))
    )
    return workspace, request


async def stopped(mine: LastingService) -> tuple[pb.Workspace, pb.ExecuteRequest]:
    """Makes a workspace as `made` does, and stops the service in good order."""
    async with mine.running() as stub:
        workspace, request = await made(stub)
    await mine.end(signal.SIGTERM)
    return workspace, request


async def is_whole(stub: Stub, workspace: pb.Workspace, request: pb.ExecuteRequest) -> None:
    """Checks that a workspace is known by all that it was known by."""
    assert set(await listed(stub)) == {workspace.workspace_id}
    found = await stub.ListWorkspaces(pb.ListWorkspacesRequest(labels={"project": "a"}))
    assert [each.workspace_id for each in found.workspaces] == [workspace.workspace_id]
    assert found.workspaces[0].lease_expire_time.ToSeconds() > time.time() + RENEWED / 2
    assert (await stub.CreateWorkspace(_wanted())).workspace.workspace_id == workspace.workspace_id
    assert (await stub.Execute(request)).stdout.head == b"green\n"
    assert await output(stub, workspace, "echo $COLOUR; cat runs") == b"green\nrun\n"


def _wanted() -> pb.CreateWorkspaceRequest:
    return create("local", request_id="make", labels={"project": "a"}, environment={"COLOUR": "green"})


def _garbage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 3000 : middle + 3000] = os.urandom(6000)
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: os.truncate(path, 0),
    "half": lambda path: os.truncate(path, path.stat().st_size // 2 // 512 * 512),
    "garbage": _garbage,
    "no database": lambda path: path.write_bytes(b"not a database" * 1000),
    "removed": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_registry_is_made_anew(mine: LastingService, damage: str) -> None:
    """Workspaces are found again by what their guests remember."""
    workspace, request = await stopped(mine)
    DAMAGES[damage](mine.state / "registry.db")
    async with mine.running() as stub:
        await is_whole(stub, workspace, request)


@pytest.mark.parametrize("side", ["registry.db-wal", "registry.db-shm"])
async def test_damaged_sides_of_a_registry_whose_service_was_killed(mine: LastingService, side: str) -> None:
    async with mine.running() as stub:
        workspace, request = await made(stub)
    await mine.end(signal.SIGKILL)
    path = mine.state / side
    path.write_bytes(os.urandom(path.stat().st_size))
    async with mine.running() as stub:
        await is_whole(stub, workspace, request)


async def test_newer_registry_is_left_alone(mine: LastingService) -> None:
    workspace, request = await stopped(mine)
    _set_version(mine.state, 99)
    assert "schema 99" in await mine.refused()
    _set_version(mine.state, 1)
    async with mine.running() as stub:
        await is_whole(stub, workspace, request)


def _set_version(state: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(state / "registry.db")) as db:
        db.execute(f"PRAGMA user_version={version}")


async def test_registry_that_is_a_directory(mine: LastingService) -> None:
    workspace, request = await stopped(mine)
    registry, aside = mine.state / "registry.db", mine.state / "aside"
    registry.rename(aside)
    registry.mkdir()
    assert str(registry) in await mine.refused()
    registry.rmdir()
    aside.rename(registry)
    async with mine.running() as stub:
        await is_whole(stub, workspace, request)


async def test_locked_registry_at_the_start(mine: LastingService) -> None:
    workspace, request = await stopped(mine)
    with locked(mine.state / "registry.db"):
        assert "locked" in await mine.refused()
    async with mine.running() as stub:
        await is_whole(stub, workspace, request)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "no JSON",
        json.dumps({"service_id": "a", "secret": "no hex"}),
        json.dumps({"service_id": "a", "secret": ""}),  # every key would be one that anybody can compute
        json.dumps({"service_id": "", "secret": "00" * 32}),
    ],
)
async def test_damaged_identity(mine: LastingService, content: str) -> None:
    """It is not replaced: that would give every workspace up."""
    workspace, request = await stopped(mine)
    identity = mine.state / "identity"
    good = identity.read_text()
    identity.write_text(content)
    assert f"{identity} is damaged" in await mine.refused()
    assert identity.read_text() == content
    identity.write_text(good)
    async with mine.running() as stub:
        await is_whole(stub, workspace, request)


async def test_removed_identity(mine: LastingService) -> None:
    """The service comes up as another one, which leaves alone what it cannot prove to be its own."""
    workspace, request = await stopped(mine)
    identity = mine.state / "identity"
    good = identity.read_text()
    identity.unlink()
    async with mine.running() as stub:
        other = (await stub.CreateWorkspace(create("local"))).workspace
        assert await output(stub, other, "echo here") == b"here\n"
        await destroy(stub, other.workspace_id)
        assert host_file(workspace, "runs").exists()
    await mine.end(signal.SIGTERM)
    identity.write_text(good)
    async with mine.running() as stub:
        await is_whole(stub, workspace, request)


async def test_full_file_system(directory: Path) -> None:
    """What needs no writing goes on; a workspace is refused before anything of it is made."""
    with small(directory / "state"):
        async with lasting(directory) as mine, mine.running() as stub:
            workspace, request = await made(stub)
            last = (await stub.CreateWorkspace(create("local"))).workspace
            filling = fill(mine.state)
            await _goes_on(mine, stub, workspace, request)
            await _is_destroyed(stub, last)
            filling.unlink()
            await mine.end(signal.SIGKILL)
            async with mine.running() as next_stub:
                await eventually(lambda: _only(next_stub, workspace), "what was destroyed is not listed")
                await is_whole(next_stub, workspace, request)


async def test_full_file_system_at_the_start(directory: Path) -> None:
    with small(directory / "state"):
        async with lasting(directory) as mine:
            async with mine.running() as stub:
                workspace, request = await made(stub)
            await mine.end(signal.SIGTERM)
            filling = fill(mine.state)
            assert "registry" in await mine.refused()
            filling.unlink()
            async with mine.running() as stub:
                await is_whole(stub, workspace, request)


async def test_read_only_file_system_at_the_start(directory: Path) -> None:
    with small(directory / "state"):
        async with lasting(directory) as mine:
            async with mine.running():
                pass
            await mine.end(signal.SIGTERM)
            _remount(mine.state, "ro")
            assert "Read-only file system" in await mine.refused()
            _remount(mine.state, "rw")
            async with mine.running() as stub:
                assert not await listed(stub)


def _remount(path: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(path)], check=True)


async def test_locked_registry_of_a_running_service(mine: LastingService) -> None:
    async with mine.running() as stub:
        workspace, request = await made(stub)
        last = (await stub.CreateWorkspace(create("local"))).workspace
        with locked(mine.state / "registry.db"):
            await _goes_on(mine, stub, workspace, request)
            await _is_destroyed(stub, last)
    await mine.end(signal.SIGKILL)
    async with mine.running() as stub:
        await eventually(lambda: _only(stub, workspace), "what was destroyed is not listed")
        await is_whole(stub, workspace, request)


async def _only(stub: Stub, workspace: pb.Workspace) -> bool:
    return set(await listed(stub)) == {workspace.workspace_id}


async def _goes_on(mine: LastingService, stub: Stub, workspace: pb.Workspace, request: pb.ExecuteRequest) -> None:
    """Checks what a service does whose registry cannot be written."""
    assert (await stub.Execute(request)).stdout.head == b"green\n"
    assert await output(stub, workspace, "cat runs") == b"run\n"
    read = pb.ReadFileRequest(workspace_id=workspace.workspace_id, path="runs")
    assert b"".join([answer.data async for answer in stub.ReadFile(read)]) == b"run\n"
    renewal = pb.RenewWorkspaceRequest(workspace_id=workspace.workspace_id, lease_duration=seconds(90))
    assert (await stub.RenewWorkspace(renewal)).HasField("lease_expire_time")
    before = sorted((mine.state / "w").iterdir())
    with refused(grpc.StatusCode.UNAVAILABLE, "REGISTRY_UNAVAILABLE"):
        await stub.CreateWorkspace(create("local"))
    assert sorted((mine.state / "w").iterdir()) == before


async def _is_destroyed(stub: Stub, workspace: pb.Workspace) -> None:
    await destroy(stub, workspace.workspace_id)
    assert not host_file(workspace, "").exists()
    assert workspace.workspace_id not in await listed(stub)
