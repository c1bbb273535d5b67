"""A service starts, stops, is refused what it cannot have, and is killed. Nothing of it may be left."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration import wire
from tests.integration.cli import run
from tests.integration.wire import EventReader, Stub, connected, host_file, refused, resume, seconds, shell, start
from tests.support.eventually import eventually
from tests.support.jobs import TREE_SIZE, new_mark, sleep_for_ever, tree
from tests.support.proc import belonging_to, mentioning
from tests.support.service import ServedProcess

FAILED = 125
LASTING = {"state", "state/w"} | {
    f"state/{name}" for name in ("lock", "identity", "registry.db", "registry.db-wal", "registry.db-shm")
}
"""What a killed service leaves for the next one."""
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def ground(warm: None) -> None:
    """Nothing is asked of the shared service here."""


def options(directory: Path, *more: str) -> list[str]:
    """Options of a service that keeps everything in a directory of the test's."""
    return ["--address", f"unix:{directory}/grpc.sock", "--state-dir", str(directory / "state"), *more]


def passing(directory: Path, *more: str) -> ServedProcess:
    """Starts a service whose workspaces end with it, and whose temporary files lie in a directory of ours."""
    return ServedProcess("--address", f"unix:{directory}/grpc.sock", *more, environment={"TMPDIR": str(directory)})


async def ended(service: ServedProcess, within: float = 20) -> int:
    """Waits for a service to end and returns its exit code."""
    return await asyncio.to_thread(service.process.wait, within)


async def create(stub: Stub, lease: float = 60) -> pb.Workspace:
    request = pb.CreateWorkspaceRequest(provider="local", lease_duration=seconds(lease))
    return (await stub.CreateWorkspace(request)).workspace


async def drained(target: str) -> None:
    """Waits until a service takes no new call."""

    async def refuses() -> bool:
        async with connected(target) as stub:
            try:
                await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=5)
            except grpc.aio.AioRpcError as error:
                return error.code() is UNAVAILABLE
        return False

    await eventually(refuses, "new calls are refused")


def left_in(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def remains_of_workspaces(directory: Path) -> list[str]:
    """Returns all that is called as a workspace, however deep: without minding what goes away meanwhile."""
    return [name for _, *kinds in os.walk(directory) for names in kinds for name in names if name.startswith("ws-")]


def refused_service(*options: str) -> str:
    """Runs a service that must not come up and returns what it says about that."""
    done = run("serve", *options)
    assert done.returncode == FAILED
    assert done.stdout == ""
    said: str = done.stderr
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_running_calls_get_their_grace(directory: Path, number: signal.Signals) -> None:
    """A call under way is answered, new ones are refused, and then everything is taken down."""
    mark = new_mark()
    with passing(directory, "--grace", "30") as service:
        async with connected(service.target) as stub:
            workspace, idle = await create(stub), await create(stub)
            daemon = shell(f"setsid sleep {mark} >&- 2>&- <&- & echo started")
            await stub.Execute(pb.ExecuteRequest(workspace_id=idle.workspace_id, command=daemon))
            command = shell("touch began; until [ -e go ]; do sleep 0.05; done; echo done")
            request = pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=command)
            running = asyncio.ensure_future(stub.Execute(request))
            await eventually(host_file(workspace, "began").exists, "the command runs")

            service.process.send_signal(number)
            await drained(service.target)
            if number == signal.SIGHUP:  # of which a terminal that is closed sends two
                service.process.send_signal(number)
            assert mentioning(mark), "workspaces live as long as calls run"
            host_file(workspace, "go").touch()
            result = await running
        assert result.stdout.head == b"done\n"
        assert await ended(service) == 0
        log = service.log
    assert "Traceback" not in log
    assert "error" not in log
    assert not mentioning(mark)
    assert not belonging_to(directory)
    assert left_in(directory) == set()


@pytest.mark.parametrize("rpc", ["execute", "stream"])
async def test_calls_that_outlast_the_grace_are_cut(directory: Path, rpc: str) -> None:
    """Clients are told to try again elsewhere, and the tree is gone."""
    mark = new_mark()
    with passing(directory, "--grace", "0.5") as service:
        async with connected(service.target) as stub:
            request = start(await create(stub), tree(mark))
            execute = pb.ExecuteRequest(workspace_id=request.workspace_id, command=request.start.command)
            running = asyncio.ensure_future(wire.call(stub, request if rpc == "stream" else execute))
            await eventually(lambda: len(mentioning(mark)) >= TREE_SIZE, "the tree has grown")
            service.process.send_signal(signal.SIGTERM)
            with refused(UNAVAILABLE, "UNAVAILABLE") as caught:
                await running
            assert "the server drains; resume, or repeat" in caught.message
        assert await ended(service) == 0
        log = service.log
    assert "Traceback" not in log
    assert not mentioning(mark)
    assert not belonging_to(directory)


async def test_calls_that_are_repeated_at_once_are_refused_as_those_of_a_service_that_drains(directory: Path) -> None:
    """And are not cut off by gRPC as it closes the connection, which is CANCELLED: nobody repeats that by itself."""
    with passing(directory) as service:
        async with connected(service.target) as stub:
            workspace = await create(stub)
            request = start(workspace, ["sleep", "60"], linger=seconds(60))
            running: list[Any] = [stub.Stream(request) for _ in range(64)]
            processes = [(await stream.read()).started.process_id for stream in running]

            async def resumed(stream: Any, process_id: str) -> grpc.StatusCode:
                await stream.code()
                return await stub.Stream(resume(workspace, process_id)).code()

            service.process.send_signal(signal.SIGTERM)
            codes = await asyncio.gather(*map(resumed, running, processes))
        assert set(codes) == {UNAVAILABLE}
        assert await ended(service) == 0


async def test_second_signal_ends_it_at_once(directory: Path) -> None:
    """What is left then goes with the leases."""
    mark = new_mark()
    with ServedProcess(*options(directory, "--grace", "600")) as service:
        async with connected(service.target) as stub:
            workspace = await create(stub, lease=2)
            async with EventReader(stub, start(workspace, shell(f"echo ready; sleep {mark}"))) as events:
                await events.until("output")
                service.process.send_signal(signal.SIGTERM)
                await drained(service.target)
                service.process.send_signal(signal.SIGTERM)
                assert await ended(service, within=5) == -signal.SIGTERM
        await _nothing_left(directory, mark)


async def test_service_that_is_not_to_end_with_its_terminal_does_not(directory: Path) -> None:
    """As nohup(1) has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    address = f"unix:{directory}/grpc.sock"
    try:
        service = await asyncio.to_thread(lambda: ServedProcess("--address", address, from_nothing=True))
    finally:
        signal.signal(signal.SIGHUP, before)
    with service:
        service.process.send_signal(signal.SIGHUP)
        async with connected(service.target) as stub:
            await create(stub)


@pytest.mark.parametrize("state", ["lasting", "temporary"])
async def test_killed_service_leaves_nothing_after_the_leases(directory: Path, state: str) -> None:
    """The guests end the workspaces by themselves; the last one removes a temporary state directory too."""
    mark = new_mark()
    with ServedProcess(*options(directory)) if state == "lasting" else passing(directory) as service:
        async with connected(service.target) as stub:
            workspaces = [await create(stub) for _ in range(2)]
            for workspace in workspaces:
                request = start(workspace, sleep_for_ever(mark), detached=True)
                async with EventReader(stub, request) as events:
                    await events.until("started")
                daemon = shell(f"setsid sleep {mark} >&- 2>&- <&- & echo started")
                await stub.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=daemon))
            assert len(mentioning(mark)) == 4
            for workspace, lease in zip(workspaces, (1, 3), strict=True):
                await stub.RenewWorkspace(
                    pb.RenewWorkspaceRequest(workspace_id=workspace.workspace_id, lease_duration=seconds(lease))
                )
        service.kill()
        await _nothing_left(directory, mark)
    assert left_in(directory) - {"grpc.sock"} == (LASTING if state == "lasting" else set())


async def _nothing_left(directory: Path, mark: str) -> None:
    await eventually(lambda: not mentioning(mark), "the commands are gone")
    await eventually(lambda: not belonging_to(directory), "the guests are gone")
    await eventually(lambda: not remains_of_workspaces(directory), "the workspaces are gone")
    await eventually(lambda: not list(directory.glob("agentic-isolation-*")), "temporary state is gone")


async def test_killed_service_is_followed_by_another_one(directory: Path) -> None:
    """The socket file and the lock that it left are no obstacle."""
    with ServedProcess(*options(directory)) as first:
        async with connected(first.target) as stub:
            await create(stub, lease=1)
        first.kill()
        with ServedProcess(*options(directory)) as second:
            assert second.target == first.target
            async with connected(second.target) as stub:
                workspace = await create(stub)
                result = await stub.Execute(
                    pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell("echo hi"))
                )
                assert result.stdout.head == b"hi\n"
                await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id))
        await eventually(lambda: not remains_of_workspaces(directory), "the first one's workspace is gone")


@pytest.fixture
async def other(directory: Path) -> AsyncIterator[ServedProcess]:
    """A service that has what the test's own one would like to have."""
    with ServedProcess(*options(directory)) as service:
        yield service
        async with connected(service.target) as stub:
            await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10)
        service.process.send_signal(signal.SIGTERM)
        assert await ended(service) == 0


async def test_second_service_on_one_state_directory_is_refused(directory: Path, other: ServedProcess) -> None:
    words = await asyncio.to_thread(
        refused_service,
        *("--address", f"unix:{directory}/else.sock", "--state-dir", f"{directory}/state", "--takeover-timeout", "0.5"),
    )
    assert f"another service uses {directory}/state" in words
    assert "--state-dir" in words


async def test_second_service_on_one_socket_is_refused(directory: Path, other: ServedProcess) -> None:
    """It must neither take the address away nor, when it ends, remove it."""
    words = await asyncio.to_thread(refused_service, "--address", other.target)
    assert f"cannot listen on {other.target}" in words
    async with connected(other.target) as stub:
        await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10)


async def test_taken_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        words = await asyncio.to_thread(refused_service, "--address", address)
    assert f"cannot listen on {address}" in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--address", "0.0.0.0:0"], "authentication"),
        (["--address", "[::]:0"], "authentication"),
        (["--address", "example.org:50051"], "authentication"),
        (["--address", "50051"], "host:port"),
        (["--address", "127.0.0.1:99999"], "host:port"),
        (["--address", "unix:" + "x" * 108], "107"),
        (["--grace", "-1"], "grace"),
        (["--takeover-timeout", "-1"], "takeover_timeout"),
        (["--request-window", "0"], "request_window"),
        (["--max-workspaces", "0"], "max_workspaces"),
        (["--metrics-address", "9464"], "metrics_address"),
        (["--state-dir", "/dev/null/state"], "/dev/null/state"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_settings_that_make_no_sense_are_refused(arguments: list[str], words: str) -> None:
    assert words in refused_service(*arguments)


async def test_addresses(directory: Path) -> None:
    """A free port and a unix socket; both are announced in the way that clients take them."""
    for address, announced in (
        ("127.0.0.1:0", "127.0.0.1:"),
        ("localhost:0", "localhost:"),
        (f"unix:{directory}/grpc.sock", f"unix:{directory}/grpc.sock"),
    ):
        with ServedProcess("--address", address) as service:
            assert service.target.startswith(announced)
            assert not service.target.endswith(":0")
            async with connected(service.target) as stub:
                await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10)
            service.process.send_signal(signal.SIGTERM)
            assert await ended(service) == 0
    assert left_in(directory) == set(), "the socket is removed"


async def test_state_is_private(directory: Path) -> None:
    """Whatever the directory was before, and whatever the umask is."""
    state = directory / "state"
    state.mkdir(mode=0o777)
    state.chmod(0o777)
    with ServedProcess(*options(directory)) as service:
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        async with connected(service.target) as stub:
            workspace = await create(stub)
            assert stat.S_IMODE(host_file(workspace, "").stat().st_mode) == 0o700
            await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id))
        for name in ("identity", "registry.db"):
            assert stat.S_IMODE((state / name).stat().st_mode) & 0o077 == 0
        service.process.send_signal(signal.SIGTERM)
        assert await ended(service) == 0


async def test_full_service_refuses_more_workspaces(directory: Path) -> None:
    with passing(directory, "--max-workspaces", "2") as service:
        async with connected(service.target) as stub:
            answers: list[Any] = await asyncio.gather(*(create(stub) for _ in range(6)), return_exceptions=True)
            made = [answer for answer in answers if isinstance(answer, pb.Workspace)]
            assert len(made) == 2
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "CAPACITY"):
                await create(stub)
            await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=made[0].workspace_id))
            await create(stub)
        service.process.send_signal(signal.SIGTERM)
        assert await ended(service) == 0


async def test_provider_that_is_not_offered(directory: Path) -> None:
    """Beside an engine's socket, commands of callers on the service's own host would have the engine."""
    with passing(directory, "--provider", "docker") as service:
        async with connected(service.target) as stub:
            with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "provider") as caught:
                await create(stub)
            assert caught.message == "provider: there is no provider 'local'; use 'docker'"
            info = await stub.GetServerInfo(pb.GetServerInfoRequest())
            assert [provider.name for provider in info.providers] == ["docker"]
        service.process.send_signal(signal.SIGTERM)
        assert await ended(service) == 0
