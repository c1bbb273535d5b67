"""The authorization matrix: every RPC × everybody who may call, and who may not. And that nobody finds out by it.

RPCs are the contract's own list: a new one fails `test_every_rpc_is_in_the_matrix` until it is in every_rpc.py.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
from tests.integration.tenancy import shown, stub_of, tenant_table, token_table
from tests.integration.wire import Stub, a_workspace, connected, host_files, seconds, shell
from tests.security.every_rpc import (
    HERE,
    MISSING,
    OF_WORKSPACE,
    RPCS,
    SUCCEED_OTHERWISE,
    WITHOUT_WORKSPACE,
    Outcome,
    aimed,
    outcome,
)
from tests.support.certificates import Authority, Pair
from tests.support.issuer import AUDIENCE, ISSUER, Issuer
from tests.support.service import ServedProcess

LOCAL = 'providers = ["local"]'
EVERY_RPC = WITHOUT_WORKSPACE | OF_WORKSPACE
TIMED = 300
"""Calls of each kind whose times are compared."""
UNAUTHENTICATED = ("UNAUTHENTICATED", "UNAUTHENTICATED")

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="install openssl: it makes the certificates")


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    issuer = Issuer()
    issuer.add("key", "ES256")
    return issuer


@pytest.fixture(scope="module")
def served(issuer: Issuer, private_temporary_directory: Path, own_interpreter_first: None) -> Iterator[ServedProcess]:
    """A service that knows its callers by tokens."""
    with tempfile.TemporaryDirectory(prefix="t-") as name:
        directory = Path(name)
        (directory / "keys.json").write_text(issuer.key_set())
        tables = [
            *(token_table(caller) for caller in ("red", "blue", "admins", "stranger")),
            token_table("expired", "expires = 2020-01-01T00:00:00Z"),
            tenant_table("red", LOCAL, "token:expired", f"jwt:{ISSUER}#builder"),
            tenant_table("blue", LOCAL),
            tenant_table("admins", LOCAL + "\nadmin = true"),
            f'[jwt]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\njwks = "{directory}/keys.json"',
        ]
        (directory / "config.toml").write_text("\n".join(tables))
        options = ("--address", "127.0.0.1:0", "--config", str(directory / "config.toml"), "--log-level", "warning")
        with ServedProcess(*options) as served:
            yield served
            assert not served.log, "the service has complained"


@pytest.fixture
def ground(warm: None, served: ServedProcess) -> None:
    """The service is up before accounts are taken."""


@pytest.fixture
async def anybody(served: ServedProcess) -> AsyncIterator[Stub]:
    """The service as who shows nothing has it."""
    async with connected(served.target) as stub:
        yield stub


@dataclass
class Stage:
    """A workspace of the tenant red, and what the test knows of it."""

    workspace: pb.Workspace
    admins: Stub

    async def holdings(self) -> dict[str, object]:
        """What there is in it, and that there is no other."""
        named = pb.GetWorkspaceRequest(workspace_id=self.workspace.workspace_id)
        listed = await self.admins.ListWorkspaces(pb.ListWorkspacesRequest())
        processes = await self.admins.ListProcesses(pb.ListProcessesRequest(workspace_id=named.workspace_id))
        return {
            "workspaces": [workspace.workspace_id for workspace in listed.workspaces],
            "lease": str((await self.admins.GetWorkspace(named)).workspace.lease_expire_time),
            "processes": [process.process_id for process in processes.processes],
            "files": host_files(self.workspace),
        }


@pytest.fixture
async def stage(anybody: Stub) -> AsyncIterator[Stage]:
    red = stub_of(anybody, "red")
    async with a_workspace(red) as workspace:
        named = workspace.workspace_id
        await red.Execute(pb.ExecuteRequest(workspace_id=named, command=shell("touch secret")))
        yield Stage(workspace, stub_of(anybody, "admins"))


async def refused_everywhere(stub: Stub, stage: Stage, expected: tuple[str, str]) -> None:
    """Every RPC is refused to a caller, and nothing was done."""
    before = await stage.holdings()
    for rpc, requests in EVERY_RPC.items():
        told = await outcome(stub, rpc, aimed(requests, stage.workspace.workspace_id))
        assert (told.code, told.reason) == expected, f"{rpc}: {told}"
        assert stage.workspace.workspace_id not in told.message
    assert await stage.holdings() == before, "something was done"


async def allowed_everywhere(stub: Stub, owner: Stub) -> None:
    """Every RPC does for a caller what it is for, with a workspace of the owner's."""
    async with a_workspace(owner) as workspace:
        for rpc, requests in EVERY_RPC.items():
            expected = SUCCEED_OTHERWISE.get(rpc, ("OK", ""))
            told = await outcome(stub, rpc, aimed(requests, workspace.workspace_id))
            assert (told.code, told.reason) == expected, f"{rpc}: {told}"
    for workspace in (await stub.ListWorkspaces(pb.ListWorkspacesRequest())).workspaces:
        await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id))


def test_every_rpc_is_in_the_matrix() -> None:
    assert sorted(EVERY_RPC) == sorted(RPCS)
    for rpc, requests in OF_WORKSPACE.items():
        assert any(HERE.encode() in request.SerializeToString() for request in requests), rpc
    for rpc, requests in WITHOUT_WORKSPACE.items():
        assert "workspace_id" not in requests[0].DESCRIPTOR.fields_by_name, rpc


async def test_no_identity(anybody: Stub, stage: Stage) -> None:
    await refused_everywhere(anybody, stage, UNAUTHENTICATED)


async def test_unknown_token(anybody: Stub, stage: Stage) -> None:
    await refused_everywhere(shown(anybody, "ais_never-given-out"), stage, UNAUTHENTICATED)


async def test_expired_token(anybody: Stub, stage: Stage) -> None:
    await refused_everywhere(stub_of(anybody, "expired"), stage, UNAUTHENTICATED)


async def test_web_token_for_another_audience(anybody: Stub, stage: Stage, issuer: Issuer) -> None:
    await refused_everywhere(shown(anybody, issuer.token("key", aud="another-service")), stage, UNAUTHENTICATED)


async def test_expired_web_token(anybody: Stub, stage: Stage, issuer: Issuer) -> None:
    await refused_everywhere(shown(anybody, issuer.token("key", exp=time.time() - 3600)), stage, UNAUTHENTICATED)


@pytest.mark.parametrize("who", ["token", "web token"])
async def test_identity_of_no_tenant(anybody: Stub, stage: Stage, issuer: Issuer, who: str) -> None:
    stub = stub_of(anybody, "stranger") if who == "token" else shown(anybody, issuer.token("key", sub="nobody"))
    await refused_everywhere(stub, stage, ("PERMISSION_DENIED", "NOT_ALLOWED"))


async def test_wrong_tenant(anybody: Stub, stage: Stage) -> None:
    """Whatever it asks for, the answer is that of a workspace which never existed, to the last byte."""
    blue = stub_of(anybody, "blue")
    before = await stage.holdings()
    here = stage.workspace.workspace_id
    for rpc, requests in OF_WORKSPACE.items():
        told = await outcome(blue, rpc, aimed(requests, here))
        assert (told.code, told.reason) == ("NOT_FOUND", "WORKSPACE_NOT_FOUND"), f"{rpc}: {told}"
        assert told.about(here) == await outcome(blue, rpc, aimed(requests, MISSING)), rpc
    assert await stage.holdings() == before, "something was done"
    for rpc, requests in WITHOUT_WORKSPACE.items():
        told = await outcome(blue, rpc, requests)
        assert (told.code, told.reason) == SUCCEED_OTHERWISE.get(rpc, ("OK", "")), f"{rpc}: {told}"
    [own] = (await blue.ListWorkspaces(pb.ListWorkspacesRequest())).workspaces
    assert own.workspace_id != here
    await blue.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=own.workspace_id))


async def test_bad_requests_of_the_wrong_tenant(anybody: Stub, stage: Stage) -> None:
    """What is wrong with a request, and what is right, says nothing either."""
    blue, here = stub_of(anybody, "blue"), stage.workspace.workspace_id
    bad = {
        "Execute": pb.ExecuteRequest(workspace_id=HERE, command=shell("")),
        "Stream": pb.StreamRequest(workspace_id=HERE),
        "ReadFile": pb.ReadFileRequest(workspace_id=HERE, path="../secret"),
        "RenewWorkspace": pb.RenewWorkspaceRequest(workspace_id=HERE, lease_duration=seconds(-1)),
        "WatchDirectory": pb.WatchDirectoryRequest(workspace_id=HERE, path="secret", keepalive_interval=seconds(1e-9)),
        "WaitProcess": pb.WaitProcessRequest(workspace_id=HERE),
    }
    for rpc, request in bad.items():
        told = await outcome(blue, rpc, aimed([request], here))
        assert told.code in ("NOT_FOUND", "INVALID_ARGUMENT")
        assert told.about(here) == await outcome(blue, rpc, aimed([request], MISSING)), rpc


@pytest.mark.parametrize("who", ["red", "web token", "admins"])
async def test_right_tenant_and_admins(anybody: Stub, issuer: Issuer, who: str) -> None:
    stub = shown(anybody, issuer.token("key")) if who == "web token" else stub_of(anybody, who)
    await allowed_everywhere(stub, stub_of(anybody, "red"))


async def test_time_tells_nothing(anybody: Stub, stage: Stage) -> None:
    """Another one's workspace is refused as soon as one that is not there: nobody has asked its guest."""
    blue = stub_of(anybody, "blue")
    took: dict[str, list[float]] = {stage.workspace.workspace_id: [], MISSING: []}
    for _ in range(TIMED):
        for workspace_id, times in took.items():
            began = time.perf_counter()
            await outcome(blue, "GetWorkspace", [pb.GetWorkspaceRequest(workspace_id=workspace_id)])
            times.append(time.perf_counter() - began)
    here, missing = (statistics.median(times) for times in took.values())
    # A question to the guest takes 0.4 times as long again, on an idle machine and on a busy one.
    assert 1 / 1.25 < here / missing < 1.25


@dataclass(frozen=True)
class Mutual:
    """A service that knows its callers by certificates."""

    target: str
    authority: Authority
    right: Pair
    revoked: Pair

    @contextlib.asynccontextmanager
    async def connected(self, pair: Pair | None) -> AsyncIterator[Stub]:
        """Opens a channel with a certificate; None: without one."""
        shown = () if pair is None else (pair.key.read_bytes(), pair.certificate.read_bytes())
        credentials = grpc.ssl_channel_credentials(self.authority.certificate.read_bytes(), *shown)
        async with grpc.aio.secure_channel(self.target, credentials) as channel:
            stub: Stub = pb_grpc.WorkspaceServiceStub(channel)
            yield stub


@pytest.fixture(scope="module")
def mutual(private_temporary_directory: Path, own_interpreter_first: None) -> Iterator[Mutual]:
    with tempfile.TemporaryDirectory(prefix="t-") as name:
        directory = Path(name)
        authority = Authority.make(directory / "authority")
        server = authority.issue("server", subject="/CN=server", names="IP:127.0.0.1", purpose="serverAuth")
        right, revoked = (
            authority.issue(client, names=f"URI:spiffe://example.org/agents/{client}")
            for client in ("right", "revoked")
        )
        (directory / "revoked.crl").write_bytes(authority.revoke(revoked))
        tables = [
            f'[tls]\ncertificate = "{server.certificate}"\nkey = "{server.key}"',
            f'client_ca = "{authority.certificate}"\nrevoked = "{directory}/revoked.crl"',
            tenant_table("red", LOCAL, "spiffe://example.org/agents/*"),
        ]
        (directory / "config.toml").write_text("\n".join(tables))
        options = ("--address", "127.0.0.1:0", "--config", str(directory / "config.toml"), "--log-level", "warning")
        with ServedProcess(*options) as served:
            yield Mutual(served.target, authority, right, revoked)


@needs_openssl
async def test_revoked_certificate(mutual: Mutual) -> None:
    """And that a certificate is needed at all, and one that is right does."""
    async with mutual.connected(mutual.right) as right, mutual.connected(mutual.revoked) as revoked:
        async with a_workspace(right) as workspace:
            await refused_everywhere(revoked, Stage(workspace, right), UNAUTHENTICATED)
        await allowed_everywhere(right, right)
    async with mutual.connected(None) as nobody:
        told = await outcome(nobody, "GetServerInfo", WITHOUT_WORKSPACE["GetServerInfo"])
        assert told == Outcome("UNAVAILABLE", message=told.message), "the handshake fails"
