"""Tokens: who shows one that is known is let in, nobody else is, and none is ever told to anybody."""

from __future__ import annotations

import asyncio
import hashlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from agentic_isolation import AgenticWorkspace, Credentials, InvalidArgumentError, UnauthenticatedError
from agentic_isolation.service import ServiceClient
from agentic_isolation.sync import Workspace
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
from agentic_isolation_service.settings.tokens import tokens_of
from tests.integration.cli import run
from tests.integration.wire import refused
from tests.support.eventually import eventually
from tests.support.name_server import NameServer
from tests.support.service import ServedProcess

TOKEN, EXPIRED = "ais_the-token-of-this-test", "ais_the-token-of-yesterday"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def table(name: str, token: str, more: str = "") -> str:
    return f'[[token]]\nname = "{name}"\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n{more}\n'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    file = tmp_path_factory.mktemp("tokens") / "config.toml"
    file.write_text(table("agents", TOKEN) + table("old", EXPIRED, "expires = 2020-01-01T00:00:00Z"))
    with ServedProcess("--address", "127.0.0.1:0", "--config", str(file), "--log-level", "debug") as served:
        yield served
        assert TOKEN not in served.log
        assert EXPIRED not in served.log


def shown(*values: str) -> Any:
    return [("authorization", value) for value in values]


async def asked(served: ServedProcess, *values: str) -> pb.GetServerInfoResponse:
    async with grpc.aio.insecure_channel(served.target) as channel:
        stub: Any = pb_grpc.WorkspaceServiceStub(channel)
        return await stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=shown(*values))  # type: ignore[no-any-return]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_known_token_is_let_in(served: ServedProcess, scheme: str) -> None:
    assert (await asked(served, f"{scheme} {TOKEN}")).version


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "nothing proves who calls; send 'authorization: Bearer TOKEN'"),
        ([f"Bearer {TOKEN}x"], "does not know this token"),
        ([f"Bearer {TOKEN[:-1]}"], "does not know this token"),
        (["Bearer a.b.c"], "does not know this token"),
        ([f"Bearer {EXPIRED}"], "the token 'old' has expired"),
        ([f"Basic {TOKEN}"], "not of the form 'Bearer TOKEN'"),
        (["Bearer"], "not of the form"),
        ([TOKEN], "not of the form"),
        ([f"Bearer {TOKEN}", f"Bearer {TOKEN}"], "more than one"),
        ([hashlib.sha256(TOKEN.encode()).hexdigest()], "not of the form"),
        ([f"Bearer {hashlib.sha256(TOKEN.encode()).hexdigest()}"], "does not know"),
    ],
)
async def test_anything_else_is_not(served: ServedProcess, values: list[str], words: str) -> None:
    with refused(UNAUTHENTICATED, "UNAUTHENTICATED") as caught:
        await asked(served, *values)
    assert words in caught.message
    assert TOKEN[4:-1] not in caught.message


async def test_refused_calls_are_nobodys_in_the_log(served: ServedProcess) -> None:
    with refused(UNAUTHENTICATED, "UNAUTHENTICATED"):
        await asked(served)
    await eventually(lambda: "code=UNAUTHENTICATED" in served.log, "the call has its line in the log")
    assert "operator" not in served.log


async def test_every_kind_of_method_asks(served: ServedProcess) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        stub: Any = pb_grpc.WorkspaceServiceStub(channel)
        with refused(UNAUTHENTICATED, "UNAUTHENTICATED"):
            await stub.WriteFile()
        with refused(UNAUTHENTICATED, "UNAUTHENTICATED"):
            async for _ in stub.Stream(pb.StreamRequest(workspace_id="x")):
                pass
        with refused(UNAUTHENTICATED, "UNAUTHENTICATED"):
            call = stub.Attach()
            await call.write(pb.AttachRequest())
            await anext(aiter(call))


async def test_health_is_open_and_reflection_is_not(served: ServedProcess) -> None:
    channel: Any = grpc.aio.insecure_channel(served.target)
    async with channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        with refused(UNAUTHENTICATED, "UNAUTHENTICATED"):
            await anext(aiter(reflection.ServerReflectionInfo()))
        call = reflection.ServerReflectionInfo(iter([question]), metadata=shown(f"Bearer {TOKEN}"))
        names = [service.name async for answer in call for service in answer.list_services_response.service]
        assert "agentic_isolation.v1.WorkspaceService" in names


@pytest.mark.parametrize("tenants", ["", '[[tenant]]\nname = "agents"\nidentities = ["token:*"]\n'])
async def test_a_proxy_proves_nothing_of_whoever_calls_through_it(directory: Path, tenants: str) -> None:
    """Not for the services beside ours either, which Envoy passes on as well. Here the proxy has the unix socket."""
    file, tables = directory / "config.toml", table("agents", TOKEN) + tenants + '[cluster]\nproxies = ["unix"]\n'
    await asyncio.to_thread(file.write_text, tables)
    options = ("--address", f"unix:{directory}/grpc.sock", "--config", str(file), "--log-level", "warning")
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    with await asyncio.to_thread(ServedProcess, *options) as served:
        with refused(UNAUTHENTICATED, "UNAUTHENTICATED") as caught:
            await asked(served)
        assert "through a proxy" in caught.message
        assert (await asked(served, f"Bearer {TOKEN}")).version
        channel: Any = grpc.aio.insecure_channel(served.target)
        async with channel:
            reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
            with refused(UNAUTHENTICATED, "UNAUTHENTICATED"):
                await anext(aiter(reflection.ServerReflectionInfo()))
            answers = reflection.ServerReflectionInfo(iter([question]), metadata=shown(f"Bearer {TOKEN}"))
            assert [answer.HasField("list_services_response") async for answer in answers] == [True]


async def test_client_shows_its_token_with_every_call(served: ServedProcess) -> None:
    shown = Credentials(token=TOKEN)
    async with AgenticWorkspace.create(provider="local", target=served.target, credentials=shown) as workspace:
        assert (await workspace.execute("echo hi")).stdout == "hi\n"
        assert [line async for line in workspace.stream("echo there")] == ["there"]
        await workspace.write_file("a", b"content")
        assert await workspace.read_file("a") == b"content"
        async with await workspace.start("cat") as process:
            await process.write("in\n")
            assert await anext(process.lines()) == "in"
        assert await AgenticWorkspace.list(target=served.target, credentials=shown)
        async with AgenticWorkspace.connect(workspace.id, target=served.target, credentials=shown) as again:
            assert again.id == workspace.id
        with pytest.raises(UnauthenticatedError, match="nothing proves who calls"):
            await AgenticWorkspace.list(target=served.target)


async def test_client_in_a_mesh_shows_its_token_without_tls(
    served: ServedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service by its name, whose way there has a sidecar."""
    async with NameServer.running() as names:
        names.addresses["isolation.mesh"] = "127.0.0.1"
        target = f"dns://127.0.0.1:{names.port}/isolation.mesh:{served.target.rpartition(':')[2]}"
        with pytest.raises(InvalidArgumentError, match="PLAINTEXT=1"):
            await AgenticWorkspace.list(target=target, credentials=Credentials(token=TOKEN))
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        shown = Credentials(token=TOKEN, plaintext=True)
        assert await AgenticWorkspace.list(target=target, credentials=shown, retry_timeout=0) == []


def test_credentials_of_the_environment(served: ServedProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTIC_ISOLATION_TARGET", served.target)
    with pytest.raises(UnauthenticatedError), Workspace.create(provider="local"):
        pass
    monkeypatch.setenv("AGENTIC_ISOLATION_TOKEN", TOKEN)
    with Workspace.create(provider="local") as workspace:
        assert workspace.execute("echo hi").stdout == "hi\n"
    listed = run("ls", "--target", served.target, environment={"AGENTIC_ISOLATION_TOKEN": TOKEN})
    assert (listed.returncode, listed.stderr) == (0, "")
    refused = run("ls", "--target", served.target, environment={"AGENTIC_ISOLATION_TOKEN": "wrong"})
    assert refused.returncode == 125
    assert "does not know this token" in refused.stderr


async def test_embedded_service_asks_for_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(table("agents", TOKEN))
    monkeypatch.setenv("AGENTIC_ISOLATION_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("AGENTIC_ISOLATION_TOKEN_FILE", str(tmp_path / "there-is-none"))
    async with AgenticWorkspace.create(provider="local") as workspace:
        assert (await workspace.execute("echo hi")).stdout == "hi\n"


async def test_token_file_is_read_again(served: ServedProcess, tmp_path: Path) -> None:
    file = tmp_path / "token"
    await asyncio.to_thread(file.write_text, "of-yesterday\n")
    credentials = Credentials(token_file=file)
    async with ServiceClient(served.target, credentials=credentials, retry_timeout=0) as client:
        with pytest.raises(UnauthenticatedError, match="does not know this token"):
            await client.info()
        await asyncio.to_thread(file.write_text, f"{TOKEN}\n")

        async def is_known() -> bool:
            try:
                await client.info()
            except UnauthenticatedError:
                return False
            return True

        await eventually(is_known, "the new token is sent")
        # Between two tokens there may be none for a moment.
        await asyncio.to_thread(file.unlink)
        await client.info()


async def test_renewals_that_are_refused_are_told(
    served: ServedProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever only reads a stream would be told nothing else than that the workspace has ended."""
    file = tmp_path / "token"
    await asyncio.to_thread(file.write_text, TOKEN)
    credentials = Credentials(token_file=file)

    def told(workspace_id: str) -> int:
        return len(re.findall(f"workspace {workspace_id} .* is refused: .* does not know this token", caplog.text))

    async with AgenticWorkspace.create(provider="local", lease=3, target=served.target, credentials=credentials) as ws:
        workspace_id = ws.id
        await asyncio.to_thread(file.write_text, "of-yesterday")
        await eventually(lambda: told(workspace_id) == 1, "it is told", within=10)
        await asyncio.to_thread(file.write_text, TOKEN)
        await asyncio.sleep(4)  # longer than what is left of the lease
        assert (await ws.execute("true")).success
        assert told(workspace_id) == 1


def test_token_is_made_for_the_configuration() -> None:
    made = run("token", "ci", "--days", "7")
    assert made.returncode == 0
    token = made.stdout.strip()
    assert len(token) > 40
    assert token not in made.stderr
    [known] = tokens_of(tomllib.loads(made.stderr)["token"])
    assert known.name == "ci"
    assert known.sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert known.expires is not None
    refused = run("token", "two words")
    assert (refused.returncode, refused.stdout) == (125, "")
    refused = run("token", "ci", "--days", "3000000")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--days" in refused.stderr
