"""The Python client's workspaces from their making to their end, with the service that it embeds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentic_isolation import (
    AgenticWorkspace,
    ClosedError,
    InvalidArgumentError,
    IsolationError,
    PreconditionError,
    ServiceClient,
    UnavailableError,
    WorkspaceLocalProvider,
    WorkspaceNotFoundError,
)
from tests.support import proc
from tests.support.eventually import eventually
from tests.support.jobs import new_mark
from tests.support.leaks import PREFIX
from tests.support.proc import mentioning
from tests.support.program import announced, python_environment
from tests.support.service import ServedProcess

NO_SUCH_WORKSPACE = "ws-aaaaaaaaaaaaaaaaaaaa"


def embedded(lease: float = 60) -> AgenticWorkspace:
    """Describes a workspace of the service that this process embeds."""
    return AgenticWorkspace.create(provider="local", lease=lease, target="")


def exists(ws: AgenticWorkspace) -> bool:
    """Whether the workspace's directory is there."""
    return Path(ws.info.host_path).exists()


def state_directories() -> list[Path]:
    """Where services keep their state."""
    return sorted(Path(tempfile.gettempdir()).glob(PREFIX + "*"))


@pytest.fixture
def others(service: ServedProcess) -> list[Path]:
    """State directories that were there before."""
    return state_directories()


async def test_embedded_service_is_private(others: list[Path]) -> None:
    async with embedded():
        (state,) = [path for path in state_directories() if path not in others]
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert not (state / "grpc.sock").exists(), "it listens nowhere"
    assert state_directories() == others


async def test_temporary_directory_with_a_path_too_long(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = directory / ("x" * (60 - len(f"{directory}/")))
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(PreconditionError, match="TMPDIR"):
        await embedded()
    assert list(long.iterdir()) == []


async def test_workspaces_share_one_embedded_service(others: list[Path]) -> None:
    """It lives as long as one of them needs it."""
    first = await embedded()
    async with embedded() as second:
        assert len(state_directories()) == len(others) + 1
        assert first.id != second.id
        await first.close()
        assert (await second.execute("echo still here")).stdout == "still here\n"
    assert state_directories() == others
    async with embedded() as third:
        assert (await third.execute("echo anew")).stdout == "anew\n"


async def test_await_and_close() -> None:
    ws = await embedded()
    assert ws.id == ws.info.id
    assert exists(ws)
    assert (await ws.execute("echo hi > file; cat file")).stdout == "hi\n"
    await ws.close()
    await ws.close()
    await asyncio.gather(ws.close(), ws.close())
    assert not exists(ws)


async def test_exception_in_the_body_comes_out_and_the_workspace_goes() -> None:
    ws = embedded()

    async def body() -> None:
        async with ws:
            assert exists(ws)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    assert not exists(ws)


async def test_use_before_opening() -> None:
    ws = embedded()
    for use in (ws.execute("true"), ws.read_file("file"), ws.write_file("file", ""), ws.file_exists("file")):
        with pytest.raises(ClosedError, match="async with"):
            await use
    with pytest.raises(ClosedError):
        ws.stream("true")
    with pytest.raises(ClosedError):
        _ = ws.info
    await ws.close()
    with pytest.raises(ClosedError):
        await ws


async def test_use_after_closing() -> None:
    async with embedded() as ws:
        files = ws.files
    for use in (ws.execute("true"), ws.read_file("file"), files.list(), files.remove("file")):
        with pytest.raises(ClosedError):
            await use
    with pytest.raises(ClosedError):
        ws.stream("true")
    with pytest.raises(ClosedError):
        await ws.files.list()
    assert ws.id, "what it was is still known"


async def test_opening_twice() -> None:
    async with embedded() as ws:
        with pytest.raises(ClosedError, match="create another"):
            await ws
        with pytest.raises(ClosedError):
            async with ws:
                pass
        assert (await ws.execute("echo unharmed")).stdout == "unharmed\n"
    with pytest.raises(ClosedError):
        await ws


async def test_opening_twice_at_the_same_time() -> None:
    ws = embedded()
    first = asyncio.create_task(ws.__aenter__())
    await asyncio.sleep(0)
    with pytest.raises(ClosedError, match="create another"):
        await ws
    await first
    assert (await ws.execute("echo unharmed")).stdout == "unharmed\n"
    await ws.close()


@pytest.mark.parametrize("where", ["embedded", "served"])
async def test_closing_while_it_is_opened(service: ServedProcess, where: str) -> None:
    """At any moment of its way. The fixtures look for guests, directories, sockets and the tasks that renew leases."""
    target = service.target if where == "served" else ""
    for number in range(20):
        ws = AgenticWorkspace.create(provider="local", lease=60, target=target)
        opening = asyncio.create_task(ws.__aenter__())
        await asyncio.sleep(0.001 * number)
        over = opening.done()
        await ws.close()
        if not over:
            with pytest.raises(ClosedError, match="while it was opened"):
                await opening
            assert opening.cancelling() == 0
    async with ServiceClient(service.target) as client:
        assert [workspace async for workspace in client.list_workspaces()] == []


async def test_cancelled_opening_of_what_is_closed_is_cancelled() -> None:
    ws = embedded()
    opening = asyncio.create_task(ws.__aenter__())
    await asyncio.sleep(0.001)
    opening.cancel()
    await ws.close()
    with pytest.raises(asyncio.CancelledError):
        await opening


async def test_closing_ends_a_running_command() -> None:
    mark = new_mark()
    ws = await embedded()
    running = asyncio.create_task(ws.execute(["sleep", mark]))
    await eventually(lambda: mentioning(mark), "the command runs")
    await ws.close()
    with pytest.raises(IsolationError):
        await running
    assert not mentioning(mark)


async def test_bad_configuration_makes_nothing(others: list[Path]) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        await AgenticWorkspace.create(provider="nowhere", target="")
    assert raised.value.field == "provider"
    assert state_directories() == others


@pytest.mark.parametrize("where", ["embedded", "served"])
async def test_cancelled_creation_leaves_nothing(service: ServedProcess, where: str) -> None:
    """Wherever in its way it is cancelled. The fixtures look for guests, directories, sockets and tasks."""
    target = service.target if where == "served" else ""
    for number in range(20):
        ws = AgenticWorkspace.create(provider="local", lease=60, target=target)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.002 * number), ws:
                await asyncio.Event().wait()
        with pytest.raises(ClosedError):
            await ws.execute("true")
    async with ServiceClient(service.target) as client:
        assert [workspace async for workspace in client.list_workspaces()] == []


async def test_cancelled_closing_goes_on() -> None:
    ws = await embedded()
    closing = asyncio.create_task(ws.close())
    await asyncio.sleep(0)
    for _ in range(3):
        closing.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not exists(ws)


async def test_whoever_closes_what_is_being_closed_waits_for_that() -> None:
    """Also by leaving it: who goes on then finds the place free."""
    ws = await embedded()
    closing = asyncio.create_task(ws.close())
    await asyncio.sleep(0)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(ws)
    assert not exists(ws)
    await closing
    await ws.close()


async def test_lease_is_renewed() -> None:
    """A workspace of a short lease lives on for several leases, and then as long as it is wanted."""
    async with embedded(lease=1) as ws:
        result = await ws.execute("sleep 3; echo done")
        assert result.stdout == "done\n"
        assert (await ws.execute("echo alive")).success


@pytest.fixture
async def served(service: ServedProcess) -> AsyncIterator[AgenticWorkspace]:
    labels = {"for": "connecting"}
    async with AgenticWorkspace.create(provider="local", target=service.target, lease=60, labels=labels) as ws:
        yield ws


async def test_connecting_to_a_workspace(service: ServedProcess, served: AgenticWorkspace) -> None:
    await served.write_file("greeting", "hello")
    async with AgenticWorkspace.connect(served.id, target=service.target) as connected:
        assert connected.id == served.id
        assert connected.info.labels == {"for": "connecting"}
        assert await connected.read_file("greeting") == b"hello"
        assert [line async for line in connected.stream("cat greeting")] == ["hello"]
    with pytest.raises(ClosedError):
        await connected.execute("true")
    assert (await served.execute("echo still here")).success


async def test_connecting_to_what_is_not_there(service: ServedProcess) -> None:
    with pytest.raises(WorkspaceNotFoundError, match=NO_SUCH_WORKSPACE):
        await AgenticWorkspace.connect(NO_SUCH_WORKSPACE, target=service.target)


async def test_connecting_does_not_renew(service: ServedProcess) -> None:
    """The lease is its maker's: here of a program that was killed."""
    code = (
        "import asyncio, os\n"
        "from agentic_isolation import AgenticWorkspace\n"
        "async def main():\n"
        f"    ws = await AgenticWorkspace.create(provider='local', lease=1.5, target={service.target!r})\n"
        "    print(ws.id, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())"
    )
    command = [sys.executable, "-c", code]
    maker = await asyncio.create_subprocess_exec(*command, env=python_environment(), stdout=subprocess.PIPE)
    output, _ = await maker.communicate()
    assert maker.returncode == -signal.SIGKILL
    async with AgenticWorkspace.connect(output.decode().strip(), target=service.target) as ws:
        await eventually(lambda: not exists(ws), "the workspace has ended")

        async def forgotten() -> bool:
            try:
                await ws.execute("true")
            except IsolationError as error:
                return isinstance(error, WorkspaceNotFoundError)
            return False

        await eventually(forgotten, "the service knows it no longer")


async def test_service_client(service: ServedProcess, served: AgenticWorkspace) -> None:
    async with ServiceClient(service.target) as client:
        info = await client.info()
        assert {provider.name for provider in info.providers} == {"docker", "local"}
        assert info.lease_limit == 24 * 3600
        mine = [workspace.id async for workspace in client.list_workspaces({"for": "connecting"})]
        assert mine == [served.id]
        assert [workspace async for workspace in client.list_workspaces({"for": "nothing"})] == []
        await client.destroy_workspace(served.id)
        with pytest.raises(WorkspaceNotFoundError):
            await client.destroy_workspace(served.id)
    with pytest.raises(WorkspaceNotFoundError):
        await served.execute("true")


async def test_listing(service: ServedProcess, served: AgenticWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a service by its address, of the environment's, and of this loop's embedded one."""
    listed = await AgenticWorkspace.list({"for": "connecting"}, target=service.target)
    assert [(workspace.id, workspace.labels["for"]) for workspace in listed] == [(served.id, "connecting")]
    assert await AgenticWorkspace.list({"for": "nothing"}, target=service.target) == []
    async with AgenticWorkspace.connect(listed[0].id, target=service.target) as ws:
        assert (await ws.execute("echo found")).stdout == "found\n"
    monkeypatch.setenv("AGENTIC_ISOLATION_TARGET", service.target)
    assert served.id in [workspace.id for workspace in await AgenticWorkspace.list()]
    assert await AgenticWorkspace.list(target="") == []
    async with embedded() as first, embedded() as second:
        assert [workspace.id for workspace in await AgenticWorkspace.list(target="")] == [first.id, second.id]
    with pytest.raises(UnavailableError, match="nobody"):
        await AgenticWorkspace.list(target="unix:nobody.sock", retry_timeout=0)


async def test_target_from_the_environment(service: ServedProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTIC_ISOLATION_TARGET", service.target)
    async with AgenticWorkspace.create(provider="local") as ws, ServiceClient(service.target) as client:
        assert ws.id in [workspace.id async for workspace in client.list_workspaces()]
        async with AgenticWorkspace.connect(ws.id) as again:
            assert again.id == ws.id
        async with embedded() as own:
            assert own.id not in [workspace.id async for workspace in client.list_workspaces()]
    monkeypatch.setenv("AGENTIC_ISOLATION_TARGET", "")
    async with AgenticWorkspace.create(provider="local") as ws, ServiceClient(service.target) as client:
        assert ws.id not in [workspace.id async for workspace in client.list_workspaces()]


async def test_targets_that_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"AGENTIC_ISOLATION_TARGET", b"host\xff:1")
    for use in (AgenticWorkspace.create, AgenticWorkspace.list):
        with pytest.raises(InvalidArgumentError) as raised:
            await use()
        assert raised.value.field == "AGENTIC_ISOLATION_TARGET"
    for target in ("host\udcff:1", 50051):
        with pytest.raises(InvalidArgumentError) as raised:
            ServiceClient(target)  # type: ignore[arg-type]
        assert raised.value.field == "target"


async def test_service_that_is_not_there(directory: Path) -> None:
    target = f"unix:{directory}/nobody.sock"
    with pytest.raises(UnavailableError, match=r"nobody\.sock"):
        await AgenticWorkspace.create(provider="local", target=target, retry_timeout=0)
    with pytest.raises(UnavailableError, match=r"nobody\.sock.*\(tried \d+ times in [\d.]+ s\)"):
        await AgenticWorkspace.create(provider="local", target=target, retry_timeout=1)


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
async def test_patience_that_is_none(seconds: float) -> None:
    for make in (
        lambda: AgenticWorkspace.create(provider="local", target="", retry_timeout=seconds),
        lambda: AgenticWorkspace.connect(NO_SUCH_WORKSPACE, target="", retry_timeout=seconds),
        lambda: ServiceClient("unix:nobody.sock", retry_timeout=seconds),
        lambda: WorkspaceLocalProvider(retry_timeout=seconds),
    ):
        with pytest.raises(InvalidArgumentError) as raised:
            make()
        assert raised.value.field == "retry_timeout"


def test_interrupted_program_cleans_up() -> None:
    """Ctrl-C in a program of the simplest kind. The fixtures look for what is left."""
    mark = new_mark()
    code = (
        "import asyncio\n"
        "from agentic_isolation import AgenticWorkspace\n"
        "async def main():\n"
        "    async with AgenticWorkspace.create(provider='local', target='') as ws:\n"
        f"        async for line in ws.stream('echo ready; sleep {mark}'):\n"
        "            print(line, flush=True)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", code], env=python_environment(), stdout=-1, stderr=-1) as program:
        assert announced(program, "the program") == "ready"
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=20)
    assert program.returncode == -signal.SIGINT
    assert errors.decode().splitlines()[-1] == "KeyboardInterrupt"
    assert not proc.mentioning(mark)
