"""The service is upgraded while a guest of the protocol's first version runs: that workspace goes on, and ends well."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from agentic_isolation.models import Isolation, WorkspaceConfig, WorkspaceInfo, WorkspaceState
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.records import WorkspaceRecord
from agentic_isolation_service.providers.local.process import GuestProcess
from agentic_isolation_service.registry import SqliteRegistry
from hatch_build import ENVIRONMENT, find_go
from tests.integration.lasting import LINGER, LastingService, destroy, execute, lasting, listed, output
from tests.integration.wire import EventReader, call, refused, resume, seconds, shell, start
from tests.support.eventually import eventually
from tests.support.proc import belonging_to

SOURCES = Path(__file__).parents[1] / "support" / "guest-protocol-1.tar.gz"
WORKSPACE = "ws-of-an-older-version"
LEASE = 60.0


@pytest.fixture
def ground(warm: None) -> None:
    """Nothing is asked of the shared service here."""


@pytest.fixture(scope="module")
def old_guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guest that speaks version 1 only, compiled like the package's own."""
    directory = tmp_path_factory.mktemp("guest-protocol-1")
    go, refused = find_go()
    if go is None:
        pytest.skip(f"compiling the older guest needs Go: {refused or 'there is none'}")
    with tarfile.open(SOURCES) as sources:
        sources.extractall(directory, filter="data")
    binary = directory / "agentic-guest"
    flags = ["-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=0.1.0"]
    subprocess.run(
        [go, "build", *flags, "-o", str(binary), "."],
        cwd=directory / "guest",
        env={**os.environ, **ENVIRONMENT},
        check=True,
    )
    return binary


@pytest.fixture
async def mine(directory: Path, old_guest: Path) -> AsyncIterator[LastingService]:
    """A service that does not run yet, and has a workspace of an older version."""
    async with lasting(directory) as service:
        async with service.running():
            pass  # makes the identity
        await service.end(signal.SIGTERM)
        await _make_workspace(service.state, old_guest)
        yield service


async def _make_workspace(state: Path, binary: Path) -> None:
    """Makes what a service leaves of a local workspace when it ends."""
    stored = json.loads((state / "identity").read_text())
    identity = Identity(stored["service_id"], bytes.fromhex(stored["secret"]))
    home = state / "w" / WORKSPACE
    root = home / "root"
    root.mkdir(parents=True)
    now = dt.datetime.now(dt.UTC)
    info = WorkspaceInfo(
        id=WORKSPACE,
        provider="local",
        state=WorkspaceState.READY,
        working_dir="/workspace",
        created_at=now,
        lease_expires_at=now + dt.timedelta(seconds=LEASE),
        isolation=Isolation(runtime="local"),
        host_path=str(root),
    )
    config = WorkspaceConfig(provider="local", environment={"COLOUR": "green"}, lease=LEASE)
    async with SqliteRegistry.open(state / "registry.db") as registry:
        await registry.put(WorkspaceRecord(config, info))
    settings = {
        "workspace_id": WORKSPACE,
        "key": identity.guest_key(WORKSPACE).hex(),
        "socket": str(home / "guest.sock"),
        "root": str(root),
        "mount": "/workspace",
        "working_dir": "/workspace",
        "lease_ms": round(LEASE * 1000),
        "cleanup": str(home),
    }
    environment = {"AGENTIC_GUEST_CONFIG": json.dumps(settings), "PATH": os.environ["PATH"], "HOME": str(root)}
    guest = await GuestProcess.start(binary, environment, log=home / "guest.log")
    guest.close()


async def test_workspace_of_an_older_guest(mine: LastingService) -> None:
    workspace = pb.Workspace(workspace_id=WORKSPACE)
    line = "echo one; until [ -e go ]; do sleep 0.05; done; echo two"
    assert len(_guests(mine)) == 1
    async with mine.running() as stub:
        assert (await listed(stub))[WORKSPACE].state == pb.WORKSPACE_STATE_READY
        assert await output(stub, workspace, "echo $COLOUR") == b"green\n"
        async with EventReader(stub, start(workspace, shell(line), linger=LINGER)) as first:
            await first.until("output")
            await mine.end(signal.SIGKILL)
    async with mine.running() as stub:
        assert set(await listed(stub)) == {WORKSPACE}
        async with EventReader(stub, resume(workspace, first.process_id, first.offset)) as second:
            await output(stub, workspace, "touch go")
            assert (await second.to_end()).exit_code == 0
        assert first.text() + second.text() == b"one\ntwo\n"

        renewal = pb.RenewWorkspaceRequest(workspace_id=WORKSPACE, lease_duration=seconds(90))
        until = (await stub.RenewWorkspace(renewal)).lease_expire_time.ToDatetime(tzinfo=dt.UTC)
        assert 80 < (until - dt.datetime.now(dt.UTC)).total_seconds() <= 90
        request = execute(workspace, "echo run >> runs; cat runs", request_id="one", linger=LINGER)
        assert (await stub.Execute(request)).stdout.head == b"run\n"

        # What it does not know is not asked of it by halves.
        opening = pb.AttachOpen(workspace_id=WORKSPACE, start=pb.ProcessStart(command=shell("touch attached")))
        for newer in (
            pb.AttachRequest(open=opening),
            pb.ExecuteRequest(workspace_id=WORKSPACE, command=shell("touch redacted", redact_secrets=True)),
            pb.WaitProcessRequest(workspace_id=WORKSPACE, process_id=first.process_id),
            pb.ListDirectoryRequest(workspace_id=WORKSPACE, depth=2),
            pb.ReadFileRequest(workspace_id=WORKSPACE, path="runs", digest=True),
            pb.ReadArchiveRequest(workspace_id=WORKSPACE),
            pb.WatchDirectoryRequest(workspace_id=WORKSPACE),
            pb.CopyFileRequest(workspace_id=WORKSPACE, source_path="runs", destination_path="copied"),
        ):
            with refused(grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED"):
                await call(stub, newer)
        known = (await stub.ListProcesses(pb.ListProcessesRequest(workspace_id=WORKSPACE))).processes
        assert not [process for process in known if process.output_bytes]  # it does not say
        assert await output(stub, workspace, "ls") == b"go\nruns\n"

        await destroy(stub, WORKSPACE)
        assert not await listed(stub)
    assert not await asyncio.to_thread(list, (mine.state / "w").iterdir())
    await eventually(lambda: not _guests(mine), "its guest has ended")


async def test_older_guest_whose_registry_was_lost_is_left_to_its_lease(mine: LastingService) -> None:
    """It remembers no record, so nobody can tell whose it is; it is not destroyed for that."""
    for path in mine.state.glob("registry.db*"):
        path.unlink()
    async with mine.running() as stub:
        assert not await listed(stub)
    [guest] = _guests(mine)
    os.kill(guest, signal.SIGTERM)


def _guests(mine: LastingService) -> list[int]:
    return [each.pid for each in belonging_to(mine.state) if each.arguments.endswith("agentic-guest serve")]
