"""Quotas over the wire: what is refused, what is held back, and that nothing stays counted."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from agentic_isolation import AgenticWorkspace, Credentials, QuotaError
from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import END, EventReader, Stub, a_workspace, argv, connected, seconds, shell, start
from tests.support.eventually import eventually
from tests.support.service import ServedProcess

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
CONFIG = """
[quota]
commands = 3

[tenant_quota]
workspaces = 2
commands = 2
streams = 3
output_per_second = "256K"
message = "1M"

[[tenant]]
name = "b"
identities = ["token:b"]
providers = ["local"]
quota = { output_per_second = "1G" }

[[tenant]]
name = "a"
identities = ["token:a"]
providers = ["local"]
"""


def token(name: str) -> str:
    return f"ais_the-token-of-{name}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    file = tmp_path_factory.mktemp("quotas") / "config.toml"
    digests = {name: hashlib.sha256(token(name).encode()).hexdigest() for name in "ab"}
    tables = (f'[[token]]\nname = "{name}"\nsha256 = "{digest}"\n' for name, digest in digests.items())
    file.write_text(CONFIG + "".join(tables))
    with ServedProcess("--address", "127.0.0.1:0", "--config", str(file), "--log-level", "warning") as served:
        yield served


class Shows:
    """A stub that shows a token on each call."""

    def __init__(self, stub: Stub, name: str) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {token(name)}"),)

    def __getattr__(self, name: str) -> Any:
        return functools.partial(getattr(self._stub, name), metadata=self._metadata)


@contextlib.asynccontextmanager
async def called(served: ServedProcess, name: str) -> AsyncIterator[Stub]:
    """Opens a channel whose calls are a tenant's."""
    async with connected(served.target) as stub:
        yield cast("Stub", Shows(stub, name))


@pytest.fixture
async def a(served: ServedProcess) -> AsyncIterator[Stub]:
    async with called(served, "a") as stub:
        yield stub


@pytest.fixture
async def b(served: ServedProcess) -> AsyncIterator[Stub]:
    async with called(served, "b") as stub:
        yield stub


class Excess:
    """A refusal for a quota, as a client in any language reads it."""

    subject = ""
    message = ""
    retry_after: float | None = None


@contextlib.contextmanager
def over_quota() -> Iterator[Excess]:
    told = Excess()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield told
    error = caught.value
    assert error.code() is EXHAUSTED, error.details()
    metadata: Any = dict(error.trailing_metadata() or ())
    status = Status.FromString(metadata["grpc-status-details-bin"])
    for detail in status.details:
        quota, retry = QuotaFailure(), RetryInfo()
        if detail.Unpack(quota):
            (violation,) = quota.violations
            told.subject = violation.subject
            assert violation.description == error.details()
        elif detail.Unpack(retry):
            told.retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    told.message = error.details() or ""
    pushback = int(metadata["grpc-retry-pushback-ms"])
    if told.retry_after is None:
        assert pushback < 0, "gRPC's own retries are to make no other attempt (gRFC A6)"
    else:
        assert pushback == pytest.approx(told.retry_after * 1000, abs=1)


def execute(workspace: pb.Workspace, command: pb.Command) -> pb.ExecuteRequest:
    return pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=command)


async def free(stub: Stub, workspace: pb.Workspace, count: int) -> None:
    """Waits until so many commands may run at a time."""

    async def fits() -> bool:
        runs = [stub.Execute(execute(workspace, argv("sleep", "0.1"))) for _ in range(count)]
        answers = await asyncio.gather(*runs, return_exceptions=True)
        return not any(isinstance(answer, BaseException) for answer in answers)

    await eventually(fits, f"{count} commands run at a time")


async def test_commands_of_a_tenant_are_bounded_and_another_is_not_in_their_way(a: Stub, b: Stub) -> None:
    async with a_workspace(a) as ours, a_workspace(b) as theirs:
        sleeping = [EventReader(a, start(ours, argv("sleep", "60"))) for _ in range(2)]
        async with sleeping[0], sleeping[1]:
            for stream in sleeping:
                await stream.next()
            with over_quota() as told:
                await a.Execute(execute(ours, argv("true")))
            assert told.subject == "tenant:a"
            assert "2 commands" in told.message
            assert told.retry_after == 1
            await b.Execute(execute(theirs, argv("true")))
        await free(a, ours, 2)


async def test_all_tenants_together_are_bounded_and_are_not_told_by_what(a: Stub, b: Stub) -> None:
    async with a_workspace(a) as ours, a_workspace(b) as theirs, contextlib.AsyncExitStack() as stack:
        for stub, workspace in ((a, ours), (a, ours), (b, theirs)):
            stream = await stack.enter_async_context(EventReader(stub, start(workspace, argv("sleep", "60"))))
            await stream.next()
        with over_quota() as told:
            await b.Execute(execute(theirs, argv("true")))
        assert told.subject == "service"
        assert "3" not in told.message
        assert told.retry_after == 1


async def test_streams_count_also_those_that_only_read(a: Stub) -> None:
    async with a_workspace(a) as workspace, contextlib.AsyncExitStack() as stack:
        stream = await stack.enter_async_context(EventReader(a, start(workspace, argv("sleep", "60"))))
        await stream.next()
        resumed = pb.StreamRequest(workspace_id=workspace.workspace_id)
        resumed.resume.process_id = stream.process_id
        for _ in range(2):
            reader = await stack.enter_async_context(EventReader(a, resumed))
            await reader.next()
        with over_quota() as told:
            async for _ in a.Stream(resumed):
                pass
        assert told.subject == "tenant:a"
        assert "3 streams" in told.message
        with over_quota():  # nobody may have any number of downloads
            async for _ in a.PullImage(pb.PullImageRequest(provider="local", image="x")):
                pass
        await a.Execute(execute(workspace, argv("true")))


async def test_what_fails_or_is_cancelled_does_not_stay_counted(a: Stub) -> None:
    async with a_workspace(a) as workspace:
        for _ in range(3):
            for command in (argv("/no/such/program"), pb.Command()):
                with pytest.raises(grpc.aio.AioRpcError):
                    await a.Execute(execute(workspace, command))
            calls = [a.Execute(execute(workspace, argv("sleep", "60"))) for _ in range(2)]
            await asyncio.wait([asyncio.ensure_future(calls[0])], timeout=0.05)
            for call in calls:
                call.cancel()
        await free(a, workspace, 2)


async def test_workspaces_of_a_tenant_are_bounded(a: Stub, b: Stub) -> None:
    request = pb.CreateWorkspaceRequest(provider="local", lease_duration=seconds(60), request_id="the-same")
    async with a_workspace(a, request_id="the-same") as first:
        async with a_workspace(a):
            with over_quota() as told:
                await a.CreateWorkspace(pb.CreateWorkspaceRequest(provider="local"))
            assert told.subject == "tenant:a"
            assert "2 workspaces" in told.message
            assert told.retry_after == 60
            again = await a.CreateWorkspace(request)
            assert again.workspace.workspace_id == first.workspace_id, "a repeat makes none"
            async with a_workspace(b):
                pass
        async with a_workspace(a):
            pass


async def test_messages_are_bounded_each(a: Stub, b: Stub) -> None:
    def upload(workspace: pb.Workspace) -> list[pb.WriteFileRequest]:
        header = pb.WriteFileHeader(workspace_id=workspace.workspace_id, path="big")
        content = [pb.WriteFileRequest(data=b"x" * size) for size in (1 << 10, 1100 << 10)]
        return [pb.WriteFileRequest(header=header), *content, END]

    async with a_workspace(a) as ours:
        with over_quota() as told:
            await a.Execute(execute(ours, shell("cat", stdin=b"x" * (1100 << 10))))
        assert told.subject == "tenant:a"
        assert told.retry_after is None, "it will never fit"
        with over_quota() as told:
            await a.WriteFile(iter(upload(ours)))
        assert "1048576 at most" in told.message
        response = await a.Execute(execute(ours, shell("ls; wc -c", stdin=b"x" * (900 << 10))))
        assert response.stdout.head.split() == [str(900 << 10).encode()]


async def test_the_client_moves_files_in_messages_of_the_least_quota(served: ServedProcess, directory: Path) -> None:
    content = b"x" * (3 << 20)
    (directory / "there").write_bytes(content)
    credentials = Credentials(token=token("a"))
    async with AgenticWorkspace.create(provider="local", target=served.target, credentials=credentials) as workspace:
        await workspace.files.write("alone", content)
        await workspace.upload(directory, "tree")
        told = await workspace.execute("cat alone tree/there | wc -c")
    assert int(told.stdout) == 2 * len(content)


async def test_output_is_held_back_and_complete(a: Stub, b: Stub) -> None:
    size = 512 << 10
    command = shell(f"head -c {size} /dev/zero")

    async def read(stub: Stub, workspace: pb.Workspace) -> float:
        began = time.monotonic()
        async with EventReader(stub, start(workspace, command)) as stream:
            await stream.to_end()
        assert len(stream.text()) == size
        return time.monotonic() - began

    async with a_workspace(a) as ours, a_workspace(b) as theirs:
        both = asyncio.gather(read(a, ours), read(a, ours))
        fast = await read(b, theirs)
        assert not both.done(), "whoever has another quota is not held back with them"
        assert max(await both) > 3, "two streams share a tenant's rate: 1 MiB at 256 KiB/s, but for a burst"
        assert fast < 3


async def test_the_client_waits_for_its_turn_and_what_is_held_counts_after_a_restart(directory: Path) -> None:
    config = directory / "config.toml"
    config.write_text("[quota]\ncommands = 1\nworkspaces = 1\n")
    options = ("--address", "127.0.0.1:0", "--config", str(config), "--state-dir", str(directory / "state"))
    with ServedProcess(*options) as served:
        async with AgenticWorkspace.create(provider="local", target=served.target) as workspace:
            began = time.monotonic()
            results = await asyncio.gather(*(workspace.execute("sleep 0.5; echo done") for _ in range(2)))
            assert [result.stdout for result in results] == ["done\n"] * 2
            assert time.monotonic() - began > 1
            impatient = await AgenticWorkspace.connect(workspace.id, target=served.target, retry_timeout=0)
            running = asyncio.ensure_future(workspace.execute("sleep 2"))
            await eventually(workspace.processes, "it runs")
            with pytest.raises(QuotaError, match="as many as it may: commands") as caught:
                await impatient.execute("true")
            assert (caught.value.subject, caught.value.retry_after) == ("service", 1)
            running.cancel()
            await asyncio.wait([running])
            await impatient.close()
        async with connected(served.target) as stub:
            await stub.CreateWorkspace(pb.CreateWorkspaceRequest(provider="local", lease_duration=seconds(60)))
    with ServedProcess(*options) as served:
        async with connected(served.target) as stub:
            with over_quota() as told:
                await stub.CreateWorkspace(pb.CreateWorkspaceRequest(provider="local"))
            assert told.subject == "service"
            (left,) = (await stub.ListWorkspaces(pb.ListWorkspacesRequest())).workspaces
            await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=left.workspace_id))
            async with a_workspace(stub):
                pass
