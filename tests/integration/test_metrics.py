"""Metrics of a service that runs: scraped over HTTP, as Prometheus does, while it is used and things go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.lasting import create, execute, lasting, listed, output
from tests.integration.pooling import PoolingService, filled, pooling
from tests.integration.wire import EventReader, a_workspace, connected, refused, seconds, shell, start
from tests.support.eventually import eventually
from tests.support.proc import belonging_to
from tests.support.scraping import Scrape, url_in
from tests.support.service import ServedProcess

CALLS = "agentic_isolation_calls_total"
COMMANDS = "agentic_isolation_command_duration_seconds_count"
CREATES = "agentic_isolation_create_duration_seconds_count"
BYTES = "agentic_isolation_transferred_bytes_total"
PIDFD_GETFD = 438
"""The number of a system call that Python does not know; the same on all machines that Linux has been brought to."""


@pytest.fixture(scope="module")
def metered(private_temporary_directory: Path) -> Iterator[ServedProcess]:
    """A service with metrics; what its command line says of them goes before what its file says."""
    directory = private_temporary_directory / "metered"
    directory.mkdir()
    config = directory / "config.toml"
    config.write_text(
        '[metrics]\naddress = "127.0.0.1:1"\n[[pool]]\nprovider = "local"\nworking_dir = "/none"\nmin = 0'
    )
    options = ("--config", str(config), "--metrics-address", "127.0.0.1:0")
    with ServedProcess("--address", f"unix:{directory}/grpc.sock", "--state-dir", f"{directory}/state", *options) as up:
        yield up


@pytest.fixture
def ground(warm: None, metered: ServedProcess) -> None:
    """Both services are up and were used before accounts are taken."""

    async def use() -> None:
        async with connected(metered.target) as stub, a_workspace(stub) as workspace:
            await output(stub, workspace, "true")
        await Scrape.of(metered.log)

    asyncio.run(use())


async def test_connections_that_say_nothing(metered: ServedProcess) -> None:
    """They take no more than a few descriptors of the service, and keep nobody from its metrics."""
    host, _, port = url_in(metered.log).removeprefix("http://").removesuffix("/metrics").rpartition(":")
    descriptors = Path(f"/proc/{metered.pid}/fd")
    before = len(os.listdir(descriptors))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(200):
            _, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
        await eventually(lambda: len(os.listdir(descriptors)) < before + 40, "the oldest are closed")
        await Scrape.of(metered.log)
    await eventually(lambda: len(os.listdir(descriptors)) <= before + 1, "all are closed")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET " + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"\x16\x03\x01" * 50 + b"\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text; version=x\r\n\r\n", b"200"),
    ],
    ids=["url", "chunks", "tls", "accept"],
)
async def test_requests_that_make_no_sense(metered: ServedProcess, sent: bytes, status: bytes) -> None:
    """They are answered, and fill nobody's log with tracebacks that have their words."""
    host, _, port = url_in(metered.log).removeprefix("http://").removesuffix("/metrics").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert answer.split()[1] == status
    assert "Traceback" not in metered.log


async def test_calls_by_method_and_code(metered: ServedProcess) -> None:
    before = await Scrape.of(metered.log)
    async with connected(metered.target) as stub, a_workspace(stub) as workspace:
        for _ in range(3):
            await output(stub, workspace, "true")
        with refused(grpc.StatusCode.NOT_FOUND, "WORKSPACE_NOT_FOUND"):
            await stub.Execute(pb.ExecuteRequest(workspace_id="ws-none", command=shell("true")))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "command.argv"):
            await stub.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=pb.Command()))
        async with EventReader(stub, start(workspace, shell("echo up; sleep 60"))) as running:
            await running.until("output")
            now = await Scrape.of(metered.log)
            assert now.value("agentic_isolation_calls_under_way", method="Stream") == 1

        async def cancelled() -> bool:
            now = await Scrape.of(metered.log)
            return now.value(CALLS, method="Stream", code="CANCELLED") == 1

        await eventually(cancelled, "the stream's end is counted")
    after = await Scrape.of(metered.log)
    assert after.value("agentic_isolation_calls_under_way") == 0

    def more(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert more(CALLS, method="Execute", code="OK") == 3
    assert more(CALLS, method="Execute", code="NOT_FOUND") == 1
    assert more(CALLS, method="Execute", code="INVALID_ARGUMENT") == 1
    assert more(CALLS, method="CreateWorkspace", code="OK") == 1
    assert more("agentic_isolation_call_duration_seconds_count", method="Execute") == 5
    assert 0 < more("agentic_isolation_call_duration_seconds_sum", method="Execute") < 10
    # Those that were refused at once are among the fastest.
    assert more("agentic_isolation_call_duration_seconds_bucket", method="Execute", le="0.025") >= 2


async def test_commands_by_how_they_end_each_counted_once(metered: ServedProcess) -> None:
    before = await Scrape.of(metered.log)
    async with connected(metered.target) as stub, a_workspace(stub) as workspace:
        again = execute(workspace, "printf 12345", request_id="once")
        for _ in range(3):  # joined and replayed: one command
            assert (await stub.Execute(again)).stdout.head == b"12345"
        await stub.Execute(execute(workspace, "exit 3"))
        late = shell("sleep 60", timeout=seconds(0.1))
        await stub.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=late))
        await stub.Execute(execute(workspace, "kill -TERM $$"))
        async with EventReader(stub, start(workspace, shell("printf 1234567; cat", stdin=b"abc"))) as stream:
            await stream.to_end()
        async with EventReader(stub, start(workspace, shell("true"), detached=True)) as detached:
            await detached.until("started")
        gone = pb.WaitProcessRequest(workspace_id=workspace.workspace_id, process_id=detached.process_id)
        for _ in range(2):
            await stub.WaitProcess(gone)
    after = await Scrape.of(metered.log)

    def more(name: str, **labels: str) -> float:
        return after.value(name, provider="local", **labels) - before.value(name, provider="local", **labels)

    assert {cause: more(COMMANDS, cause=cause) for cause in ("exited", "timeout", "signaled")} == {
        "exited": 4,
        "timeout": 1,
        "signaled": 1,
    }
    assert more("agentic_isolation_command_duration_seconds_bucket", cause="timeout", le="0.05") == 0
    assert more("agentic_isolation_command_duration_seconds_bucket", cause="timeout", le="10.0") == 1
    assert more(BYTES, content="output") == 3 * 5 + 10, "as often as it was told"
    assert more(BYTES, content="input") == 3


async def test_files_in_and_out(metered: ServedProcess) -> None:
    before = await Scrape.of(metered.log)
    async with connected(metered.target) as stub, a_workspace(stub) as workspace:

        async def upload() -> AsyncIterator[pb.WriteFileRequest]:
            yield pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id=workspace.workspace_id, path="a"))
            yield pb.WriteFileRequest(data=b"x" * 1000)
            yield pb.WriteFileRequest(end=pb.WriteFileEnd())

        await stub.WriteFile(upload())
        request = pb.ReadFileRequest(workspace_id=workspace.workspace_id, path="a", offset_bytes=400)
        assert len([response async for response in stub.ReadFile(request)]) >= 3
    after = await Scrape.of(metered.log)
    assert after.value(BYTES, content="upload") - before.value(BYTES, content="upload") == 1000
    assert after.value(BYTES, content="download") - before.value(BYTES, content="download") == 600


async def test_workspaces_cold_out_of_a_pool_and_expired(directory: Path) -> None:
    def pooled(**fields: object) -> pb.CreateWorkspaceRequest:
        return create("local", working_dir="/pooled", **fields)

    more = 'name = "spare"\nworking_dir = "/pooled"\n[metrics]\naddress = "127.0.0.1:0"'
    service = PoolingService("local", directory, most=2, more=more)
    async with pooling(service), service.running() as stub:
        await filled(stub)
        metered = service.process
        before = await Scrape.of(metered.log)
        for name, number in (("ready", 1), ("wanted", 1), ("min", 1), ("max", 2), ("failing", 0)):
            assert before.value(f"agentic_isolation_pool_{name}", pool="spare", provider="local") == number, name
        async with a_workspace(stub):
            await stub.CreateWorkspace(pooled(lease_duration=seconds(1)))
            await stub.CreateWorkspace(pooled(idle_timeout=seconds(1)))
            now = await Scrape.of(metered.log)
            assert now.value("agentic_isolation_workspaces", provider="local", state="ready") == 3

            async def expired() -> bool:
                now = await Scrape.of(metered.log)
                ends = {
                    end: now.value("agentic_isolation_workspaces_expired_total", provider="local", end=end)
                    - before.value("agentic_isolation_workspaces_expired_total", provider="local", end=end)
                    for end in ("lease", "idle", "lifetime")
                }
                return ends == {"lease": 1, "idle": 1, "lifetime": 0}

            await eventually(expired, "both ends are counted")
        after = await Scrape.of(metered.log)
    claims = {
        outcome: after.value("agentic_isolation_pool_claims_total", pool="spare", outcome=outcome)
        - before.value("agentic_isolation_pool_claims_total", pool="spare", outcome=outcome)
        for outcome in ("hit", "miss")
    }
    made = {
        origin: after.value(CREATES, origin=origin) - before.value(CREATES, origin=origin)
        for origin in ("cold", "pool")
    }
    # The second one may have come before the pool was filled again.
    assert claims["hit"] == made["pool"] >= 1
    assert claims["miss"] == made["cold"] - 1 <= 1
    assert after.value("agentic_isolation_workspaces_max") == 1000
    assert after.value("agentic_isolation_guests_lost_total") == before.value("agentic_isolation_guests_lost_total")


def cut(pid: int, path: str) -> None:
    """Shuts down a connection that a process has to a unix socket, behind its back."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if not stat.S_ISSOCK(entry.stat().st_mode):
                continue
            with socket.socket(fileno=libc.syscall(PIDFD_GETFD, process, int(entry.name), 0)) as link:
                if link.family == socket.AF_UNIX and path in str(_peer(link)):
                    link.shutdown(socket.SHUT_RDWR)
                    return
    finally:
        os.close(process)
    raise AssertionError(f"{pid} has no connection to {path}")


def _peer(link: socket.socket) -> object:
    try:
        return link.getpeername()
    except OSError:
        return ""


async def test_links_that_break_and_guests_that_are_killed(metered: ServedProcess) -> None:
    before = await Scrape.of(metered.log)
    async with connected(metered.target) as stub, a_workspace(stub) as workspace:
        cut(metered.pid, workspace.workspace_id)
        reconnects = before.value("agentic_isolation_guest_reconnects_total", provider="local")

        async def reconnected() -> bool:
            now = await Scrape.of(metered.log)
            return now.value("agentic_isolation_guest_reconnects_total", provider="local") == reconnects + 1

        await eventually(reconnected, "there is another link")
        assert await output(stub, workspace, "echo goes on") == b"goes on\n"
        [guest] = [
            process
            for process in belonging_to(Path(workspace.host_path).parent)
            if process.arguments.endswith(" serve")
        ]
        os.kill(guest.pid, signal.SIGKILL)

        async def lost() -> bool:
            now = await Scrape.of(metered.log)
            return now.value("agentic_isolation_workspaces", provider="local", state="lost") == 1

        await eventually(lost, "it is lost")
        after = await Scrape.of(metered.log)
    lost_before = before.value("agentic_isolation_guests_lost_total", provider="local")
    assert after.value("agentic_isolation_guests_lost_total", provider="local") == lost_before + 1


async def test_labels_are_few_whatever_clients_say(metered: ServedProcess) -> None:
    async with connected(metered.target) as stub, a_workspace(stub, labels={"project": "secret-project"}) as workspace:
        await output(stub, workspace, "echo hello")
        for junk in ("ws-junk-1", "ws-junk-2"):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.GetWorkspace(pb.GetWorkspaceRequest(workspace_id=junk))
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.CreateWorkspace(pb.CreateWorkspaceRequest(provider=junk))
        scrape = await Scrape.of(metered.log)
    labels = {
        name
        for family in scrape.families.values()
        if family.name.startswith("agentic_isolation")
        for sample in family.samples
        for name in sample.labels
    }
    assert labels == set("version method code provider state origin cause content end pool outcome le".split())
    values = " ".join(
        value for family in scrape.families.values() for sample in family.samples for value in sample.labels.values()
    )
    assert not re.search(r"ws-|secret|/tmp|hello", values)
    assert scrape.value("process_resident_memory_bytes") > 10 << 20
    assert scrape.value("process_open_fds") > 5
    assert scrape.value("agentic_isolation_info") == 1
    assert all(family.documentation for family in scrape.families.values())


async def test_workspaces_that_the_next_process_takes_up_and_finds(directory: Path) -> None:
    """Also: metrics are there as soon as the service is, and go with it."""
    async with lasting(directory, "--metrics-address", "127.0.0.1:0") as service:
        async with service.running() as stub:
            workspace = (await stub.CreateWorkspace(create("local"))).workspace
            url = url_in(service.process.log)
        await service.end(signal.SIGKILL)
        async with service.running() as stub:
            scrape = await Scrape.of(service.process.log)
            assert scrape.value("agentic_isolation_workspaces_taken_up_total", provider="local") == 1
            assert scrape.value("agentic_isolation_workspaces_adopted_total", provider="local") == 0
            url = url_in(service.process.log)
        await service.end(signal.SIGTERM)
        host, port = url.removeprefix("http://").removesuffix("/metrics").split(":")
        with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), timeout=5):
            pass
        for file in service.state.glob("registry.db*"):
            file.unlink()
        async with service.running() as stub:
            scrape = await Scrape.of(service.process.log)
            assert scrape.value("agentic_isolation_workspaces_taken_up_total", provider="local") == 0
            assert scrape.value("agentic_isolation_workspaces_adopted_total", provider="local") == 1
            assert list(await listed(stub)) == [workspace.workspace_id]


def test_address_of_metrics(directory: Path) -> None:
    """One that is taken, or is none, is an error that names it; one that others can reach is used, with a warning."""
    options = ("--address", f"unix:{directory}/grpc.sock", "--metrics-address")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AssertionError) as failed:
            ServedProcess(*options, address)
        assert f"cannot serve metrics on {address}" in "".join(failed.value.__notes__)
    with pytest.raises(AssertionError) as failed:
        ServedProcess(*options, "metrics..example.org:1")
    notes = "".join(failed.value.__notes__)
    assert "cannot serve metrics on metrics..example.org:1" in notes
    assert "Traceback" not in notes
    with ServedProcess(*options, "0.0.0.0:0") as service:
        assert "metrics can be read by anybody" in service.log
