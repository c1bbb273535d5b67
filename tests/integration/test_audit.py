"""The audit log of a service: complete, also when the service is killed, and calls are refused without it."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agentic_isolation.errors import NotAllowedError, UnauthenticatedError
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.app import open_workspaces
from agentic_isolation_service.audit.layers import Beginnings, Results
from agentic_isolation_service.audit.log import AuditLog
from agentic_isolation_service.audit.strangers import MOST
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.caller import Caller
from agentic_isolation_service.rpc.calls import Call
from agentic_isolation_service.rpc.server import RpcServer
from agentic_isolation_service.settings.audit import AuditSettings
from tests.integration.auditing import Entry, audit, entries, verified
from tests.integration.lasting import LastingService, execute, lasting
from tests.integration.tenancy import stub_of, token_table
from tests.integration.wire import END, EventReader, Stub, a_workspace, argv, connected, refused, shell, start
from tests.support.eventually import eventually
from tests.support.service import ServedProcess

LOAD = 300
AT_A_TIME = 30
"""Calls: of more that come at one moment a slow machine refuses some."""
CLIENTS = 16


@pytest.fixture(scope="module")
def log(private_temporary_directory: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix="audit-")) / "audit.jsonl"


@pytest.fixture(scope="module")
def audited(log: Path, own_interpreter_first: None) -> Iterator[ServedProcess]:
    """The service of all tests here."""
    address = f"unix:{log.parent}/grpc.sock"
    with ServedProcess("--address", address, "--audit-log", str(log), "--log-level", "warning") as served:
        asyncio.run(_use(served.target))
        yield served


async def _use(target: str) -> None:
    async with connected(target) as stub, a_workspace(stub) as workspace:
        await stub.Execute(execute(workspace, "true"))


@pytest.fixture
def ground(warm: None, audited: ServedProcess) -> None:
    """The service is up before accounts are taken."""


@pytest.fixture
async def stub(audited: ServedProcess) -> AsyncIterator[Stub]:
    async with connected(audited.target) as stub:
        yield stub


def files(log: Path) -> list[Path]:
    """The files of the log, from the oldest on."""
    return [*sorted(log.parent.glob("audit.*.jsonl")), log]


def moved_away(log: Path) -> Path:
    """Moves the log's file away and returns where to."""
    return log.rename(log.with_name("audit.1.jsonl"))


def since(log: Path, sequence: int) -> list[Entry]:
    """The entries after one, without what differs in each."""
    found = [entry for entry in entries(log) if entry["sequence"] > sequence]
    for entry in found:
        for name in ("sequence", "previous", "hash", "time", "peer"):
            assert entry.pop(name)
    return found


async def test_who_has_called_what_where_and_with_which_result(stub: Stub, log: Path) -> None:
    before = entries(log)[-1]["sequence"]
    operator = {"identity": "operator", "tenant": None, "admin": True}
    async with a_workspace(stub) as workspace:
        here = workspace.workspace_id
        answer = await stub.Execute(execute(workspace, "echo out; cat; exit 3"))
        with refused(grpc.StatusCode.NOT_FOUND, "PROGRAM_NOT_FOUND"):
            await stub.Execute(pb.ExecuteRequest(workspace_id=here, command=argv("no-such-program")))
        with refused(grpc.StatusCode.NOT_FOUND, "WORKSPACE_NOT_FOUND"):
            await stub.GetWorkspace(pb.GetWorkspaceRequest(workspace_id="secret"))
        header = pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id=here, path="file"))
        await stub.WriteFile(iter([header, pb.WriteFileRequest(data=b"12345"), END]))
        async with EventReader(stub, start(workspace, shell("kill -9 $$"))) as reader:
            await reader.to_end()
    found = since(log, before)
    for entry in found:
        assert entry.pop("duration_us", 1) > 0
    began = [entry.pop("began") for entry in found if "began" in entry]
    assert began == [before + 6]
    executed = {"event": "call", "method": "Execute", **operator, "workspace": here}
    streamed = {"method": "Stream", **operator, "workspace": here}
    assert found == [
        {
            "event": "call",
            "method": "CreateWorkspace",
            **operator,
            "workspace": here,
            "what": {"provider": "local", "image": "", "runtime": "local"},
            "code": "OK",
        },
        {
            **executed,
            "process": answer.process_id,
            "termination": {"cause": "EXITED", "exit_code": 3},
            "what": {"stdout_bytes": 4, "stderr_bytes": 0},
            "code": "OK",
        },
        {**executed, "code": "NOT_FOUND", "reason": "PROGRAM_NOT_FOUND"},
        {
            "event": "call",
            "method": "GetWorkspace",
            **operator,
            "code": "NOT_FOUND",
            "reason": "WORKSPACE_NOT_FOUND",
        },
        {**executed, "method": "WriteFile", "what": {"content_bytes": 5}, "code": "OK"},
        {"event": "began", **streamed},
        {
            "event": "call",
            **streamed,
            "process": reader.process_id,
            "termination": {"cause": "SIGNALED", "signal": 9},
            "code": "OK",
        },
        {"event": "call", "method": "DestroyWorkspace", **operator, "workspace": here, "code": "OK"},
    ]
    verified(*files(log))


async def test_a_long_call_is_told_while_it_runs_and_one_that_is_cut_when_it_ends(stub: Stub, log: Path) -> None:
    async with a_workspace(stub) as workspace:
        before = entries(log)[-1]["sequence"]
        running = stub.Execute(execute(workspace, "sleep 60"))
        await eventually(lambda: since(log, before), "it is told")
        running.cancel()
        await eventually(lambda: len(since(log, before)) == 2, "its end is told")
        late = stub.Execute(execute(workspace, "sleep 60"), timeout=0.2)
        with pytest.raises(grpc.aio.AioRpcError):
            await late
        await eventually(lambda: len(since(log, before)) == 3, "its end is told")
        began, cut, expired = since(log, before)
    assert (began["event"], began["method"]) == ("began", "Execute")
    assert (cut["event"], cut["code"], cut["began"]) == ("call", "CANCELLED", before + 1)
    assert expired["code"] in ("CANCELLED", "DEADLINE_EXCEEDED")


async def test_health_and_reflection_are_not_told(audited: ServedProcess, log: Path) -> None:
    before = entries(log)[-1]["sequence"]
    async with grpc.aio.insecure_channel(audited.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        await health.Check(health_pb2.HealthCheckRequest())
    assert not since(log, before)


async def test_calls_at_the_same_time_are_all_told_without_a_gap(stub: Stub, log: Path) -> None:
    async with a_workspace(stub) as workspace:
        before = entries(log)[-1]["sequence"]
        named = pb.GetWorkspaceRequest(workspace_id=workspace.workspace_id)

        async def ask() -> None:
            for _ in range(LOAD // AT_A_TIME):
                await stub.GetWorkspace(named)

        await asyncio.gather(*(ask() for _ in range(AT_A_TIME)))
        found = [entry for entry in entries(log) if entry["sequence"] > before]
        assert [entry["sequence"] for entry in found] == list(range(before + 1, before + 1 + LOAD))
        assert {entry["method"] for entry in found} == {"GetWorkspace"}
    verified(*files(log))


async def test_a_log_that_is_moved_away_goes_on_in_a_new_file(stub: Stub, log: Path) -> None:
    old = moved_away(log)
    await eventually(lambda: has_gone_on(stub, log), "there is a new file")
    await stub.ListWorkspaces(pb.ListWorkspacesRequest())
    assert [entry["event"] for entry in entries(log)] == ["chain", "call", "call"]
    head = entries(old)[-1]["hash"]
    code, said = audit("verify", log)
    assert code == 1
    assert f"{log}:1: " in said
    assert audit("head", old) == (0, head + "\n")
    verified(old, log)
    assert audit("verify", log, "--after", head)[0] == 0
    assert audit("verify", old, log, "--head", head)[0] == 0
    assert audit("verify", old, "--head", audit("head", old, log)[1].strip())[0] == 1


async def has_gone_on(stub: Stub, log: Path) -> bool:
    await stub.ListWorkspaces(pb.ListWorkspacesRequest())
    return bool(await asyncio.to_thread(log.exists))


async def test_without_its_log_a_service_refuses_calls_and_loses_none(
    audited: ServedProcess, stub: Stub, log: Path
) -> None:
    async with a_workspace(stub) as workspace:
        named = pb.GetWorkspaceRequest(workspace_id=workspace.workspace_id)
        await stub.GetWorkspace(named)
        before = len(audited.log), entries(log)[-1]["sequence"]
        with full(audited, log):
            with refused(grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE") as caught:
                await stub.Execute(execute(workspace, "touch first"))
            assert "File too large" in caught.message
            with refused(grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE"):
                await stub.Execute(execute(workspace, "touch second"))
        await eventually(lambda: goes_on(stub, named), "it goes on")
        assert (await stub.Execute(execute(workspace, "ls"))).stdout.head == b"first\n"
    found = since(log, before[1])
    assert [entry["method"] for entry in found[:1]] == ["Execute"]
    assert [entry["code"] for entry in found] == ["OK"] * len(found)
    verified(*files(log))
    assert audited.log[before[0] :].count("cannot be written") == 1


@contextlib.contextmanager
def full(service: ServedProcess, log: Path) -> Iterator[None]:
    """Lets a service write no more than a part of the next entry: as a disk that is full."""
    limits = resource.prlimit(service.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (log.stat().st_size + 100, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, limits)


async def goes_on(stub: Stub, request: pb.GetWorkspaceRequest) -> bool:
    with contextlib.suppress(grpc.aio.AioRpcError):
        await stub.GetWorkspace(request)
        return True
    return False


async def test_what_was_answered_before_a_kill_is_in_the_log(directory: Path) -> None:
    log = directory / "audit.jsonl"
    answered: list[str] = []
    async with lasting(directory, "--audit-log", str(log)) as service:
        async with service.running() as stub, asyncio.TaskGroup() as clients:
            workspace = (await stub.CreateWorkspace(pb.CreateWorkspaceRequest(provider="local"))).workspace

            async def client() -> None:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    while True:
                        answer = await stub.Execute(execute(workspace, "true"))
                        answered.append(answer.process_id)

            load = [clients.create_task(client()) for _ in range(CLIENTS)]
            await eventually(lambda: len(answered) >= LOAD, "there is load")
            await service.end(signal.SIGKILL)
            await asyncio.wait(load)
        killed = entries(log)
        assert set(answered) <= {entry.get("process") for entry in killed}
        assert [entry["event"] for entry in killed if entry["event"] != "call"] == ["chain", "start"]
        async with service.running() as stub:
            await stub.Execute(execute(workspace, "true"))
        second = LastingService(directory / "second", "--audit-log", str(log))
        assert "another service writes to" in await second.refused()
    assert [entry["sequence"] for entry in entries(log)] == list(range(1, len(entries(log)) + 1))
    assert [entry["event"] for entry in entries(log) if entry["event"] not in ("call", "began", "torn")] == [
        *("chain", "start"),
        *("start", "stop"),
    ]
    verified(*files(log))


class _Doorkeeper:
    """An authentication as there may be any."""

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        return self._admitted(call)

    @contextlib.asynccontextmanager
    async def _admitted(self, call: Call) -> AsyncIterator[None]:
        name = str(dict(call.context.invocation_metadata() or ()).get("name", ""))
        if not name:
            raise UnauthenticatedError("say your name")
        call.caller = Caller(identity=name, tenant=f"{name}s")
        if name == "eve":
            raise NotAllowedError("not you")
        yield


async def test_who_was_found_out_is_told_and_so_are_those_who_were_refused(directory: Path) -> None:
    log = directory / "audit.jsonl"
    async with (
        open_workspaces(ServiceConfig()) as workspaces,
        AuditLog.open(AuditSettings(path=log)) as audit_log,
    ):
        results = Results(audit_log, identifies=True)
        server = RpcServer(workspaces, (results, _Doorkeeper(), Beginnings(results)))
        await server.start(f"unix:{directory}/grpc.sock")
        try:
            async with connected(f"unix:{directory}/grpc.sock") as stub:
                for name in ("ann", "eve", ""):
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        metadata = (("name", name),) if name else ()
                        await stub.ListWorkspaces(pb.ListWorkspacesRequest(), metadata=metadata)
        finally:
            await server.stop(0)
    told = [(entry["identity"], entry["tenant"], entry.get("admin"), entry["code"]) for entry in entries(log, "call")]
    assert told == [
        ("ann", "anns", None, "OK"),
        ("eve", "eves", None, "PERMISSION_DENIED"),
        (None, None, None, "UNAUTHENTICATED"),
    ]


async def test_a_flood_of_calls_that_prove_nothing_does_not_fill_the_disk(directory: Path) -> None:
    log, config = directory / "audit.jsonl", directory / "config.toml"
    await asyncio.to_thread(config.write_text, token_table("agents"))
    options = ("--address", "127.0.0.1:0", "--config", str(config), "--audit-log", str(log), "--log-level", "warning")
    with await asyncio.to_thread(ServedProcess, *options) as served:
        async with connected(served.target) as stub:
            for _ in range(LOAD):
                with refused(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"):
                    await stub.ListWorkspaces(pb.ListWorkspacesRequest())
            await stub_of(stub, "agents").ListWorkspaces(pb.ListWorkspacesRequest())
    told = entries(log)
    assert [entry["event"] for entry in told] == ["chain", "start", *["call"] * (MOST + 1), "refused", "stop"]
    assert told[-3]["identity"] == "token:agents"
    assert told[-2]["calls"] == LOAD - MOST
    verified(log)
