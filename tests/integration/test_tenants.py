"""Tenants over the wire: each has workspaces of its own, as its policy has them, before and after restarts."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

from agentic_isolation import AgenticWorkspace
from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.cli import run
from tests.integration.lasting import LINGER, create, destroy, execute, listed, output
from tests.integration.pooling import PoolingService, filled, pool_of, pooling
from tests.integration.tenancy import stub_of, tenant_table, token_of, token_table
from tests.integration.wire import Stub, a_workspace, call, connected, refused, seconds
from tests.support.service import ServedProcess

DENIED = grpc.StatusCode.PERMISSION_DENIED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
LOCAL = 'providers = ["docker", "local"]'
DEVELOPMENT = {"read_only_root": False, "use_gvisor": False}
CONFIG = "\n".join(
    [
        *(token_table(name) for name in ("red", "blue", "strict", "admins", "stranger")),
        tenant_table("red", LOCAL),
        tenant_table("blue", LOCAL + '\nmax_lease = 120\nfloor = "development"'),
        tenant_table("strict", 'images = ["node:*"]\nlimits = { memory = "1G", pids = 128 }'),
        tenant_table("admins", LOCAL + "\nadmin = true", "unix"),
    ]
)
POOL = 'working_dir = "/pool"\ntenants = ["blue"]\n'


@pytest.fixture
def ground(warm: None, tenanted: Tenanted) -> None:
    """Nothing is asked of the shared service here."""


@dataclass
class Tenanted:
    """A service with tenants, and no engine."""

    served: ServedProcess
    directory: Path


@pytest.fixture(scope="module")
def tenanted(private_temporary_directory: Path, own_interpreter_first: None) -> Iterator[Tenanted]:
    with tempfile.TemporaryDirectory(prefix="t-") as name:
        directory = Path(name)
        (directory / "config.toml").write_text(CONFIG)
        options = (
            "--address",
            "127.0.0.1:0",
            "--config",
            str(directory / "config.toml"),
            "--log-level",
            "warning",
            "--channelz",
        )
        with ServedProcess(*options, environment={"DOCKER_HOST": f"unix://{directory}/no-engine.sock"}) as served:
            yield Tenanted(served, directory)
            assert not served.log, "the service has complained"


@dataclass
class Stubs:
    """The service as each caller has it."""

    red: Stub
    blue: Stub
    strict: Stub
    admins: Stub
    stranger: Stub


def stubs_of(stub: Stub) -> Stubs:
    return Stubs(**{name: stub_of(stub, name) for name in Stubs.__dataclass_fields__})


@pytest.fixture
async def stubs(tenanted: Tenanted) -> AsyncIterator[Stubs]:
    async with connected(tenanted.served.target) as stub:
        yield stubs_of(stub)


async def test_each_sees_its_own_and_admins_all(stubs: Stubs) -> None:
    labels = {"project": "same"}
    async with (
        a_workspace(stubs.red, labels=labels) as one,
        a_workspace(stubs.blue, labels=labels) as two,
        a_workspace(stubs.red, labels=labels) as three,
    ):
        red, blue = [one.workspace_id, three.workspace_id], [two.workspace_id]
        assert list(await listed(stubs.red)) == red
        assert list(await listed(stubs.blue)) == blue
        every = await listed(stubs.admins)
        assert list(every) == [one.workspace_id, two.workspace_id, three.workspace_id]
        assert [workspace.tenant for workspace in every.values()] == ["red", "blue", "red"]
        first = await stubs.red.ListWorkspaces(pb.ListWorkspacesRequest(labels=labels, page_size=1))
        request = pb.ListWorkspacesRequest(labels=labels, page_size=1, page_token=first.next_page_token)
        assert [found.workspace_id for found in (await stubs.red.ListWorkspaces(request)).workspaces] == red[1:]
        of_blue = await stubs.blue.ListWorkspaces(request)
        assert [found.workspace_id for found in of_blue.workspaces] == blue
        assert not of_blue.next_page_token
        assert await output(stubs.admins, one, "echo $((6 * 7))") == b"42\n"
        with refused(NOT_FOUND, "WORKSPACE_NOT_FOUND"):
            await output(stubs.blue, one, "true")


async def test_only_admins_are_told_of_all_connections(tenanted: Tenanted) -> None:
    async with grpc.aio.insecure_channel(tenanted.served.target) as channel:
        stub: Any = channelz_pb2_grpc.ChannelzStub(channel)  # type: ignore[arg-type]
        everything = channelz_pb2.GetServersRequest()
        for name in ("red", "strict", "stranger"):
            with refused(DENIED, "NOT_ALLOWED"):
                await stub.GetServers(everything, metadata=[("authorization", f"Bearer {token_of(name)}")])
        metadata = [("authorization", f"Bearer {token_of('admins')}")]
        assert len((await stub.GetServers(everything, metadata=metadata)).server) == 1


async def test_request_ids_are_each_tenants_own(stubs: Stubs) -> None:
    """Another one's is neither joined nor found out by being refused."""
    async with (
        a_workspace(stubs.red, request_id="same", labels={"a": "b"}) as red,
        a_workspace(stubs.blue, request_id="same") as blue,
    ):
        assert red.workspace_id != blue.workspace_id
        again = await stubs.blue.CreateWorkspace(
            pb.CreateWorkspaceRequest(provider="local", lease_duration=seconds(60), request_id="same")
        )
        assert again.workspace == blue


@pytest.mark.parametrize(
    ("name", "asked", "field"),
    [
        ("strict", {"provider": "local"}, "provider"),
        ("strict", {}, "image"),
        ("strict", {"image": "node.evil.example/image:1"}, "image"),
        ("strict", {"image": "node:22"}, "security.pids_limit"),
        ("strict", {"image": "node:22", "security": {"pids_limit": 128}}, "limits.memory_bytes"),
        ("red", {"security": {"read_only_root": False}}, "security.read_only_root"),
        ("red", {"security": {"use_gvisor": False}}, "security.use_gvisor"),
        ("red", {"security": {"user": "0:0"}}, "security.user"),
        ("red", {"limits": {"network": pb.NETWORK_MODE_OUTBOUND}}, "limits.network"),
        (
            "blue",
            {"security": {"read_only_root": False, "use_gvisor": False}, "lease_duration": seconds(121)},
            "lease_duration",
        ),
        ("admins", {"security": {"cap_drop_all": False}}, "security.cap_drop_all"),
    ],
)
async def test_policy(stubs: Stubs, tenanted: Tenanted, name: str, asked: dict[str, Any], field: str) -> None:
    request = pb.CreateWorkspaceRequest(**{"provider": "docker"} | asked)
    with refused(DENIED, "NOT_ALLOWED", field) as caught:
        await getattr(stubs, name).CreateWorkspace(request)
    assert "is not for this tenant, which may have" in caught.message
    assert not await listed(stubs.admins)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("strict", {"image": "node:22", "limits": {"memory_bytes": 1 << 30}, "security": {"pids_limit": 128}}),
        ("red", {}),
        ("blue", {"security": DEVELOPMENT, "lease_duration": seconds(120)}),
    ],
)
async def test_as_much_is_allowed(stubs: Stubs, name: str, asked: dict[str, Any]) -> None:
    """So much that the engine is asked, which is not there."""
    with refused(UNAVAILABLE, "PROVIDER_UNAVAILABLE"):
        await getattr(stubs, name).CreateWorkspace(pb.CreateWorkspaceRequest(**{"provider": "docker"} | asked))


async def test_leases_are_renewed_no_longer_than_they_may_be(stubs: Stubs) -> None:
    async with a_workspace(stubs.blue) as workspace:
        request = pb.RenewWorkspaceRequest(workspace_id=workspace.workspace_id, lease_duration=seconds(121))
        with refused(DENIED, "NOT_ALLOWED", "lease_duration"):
            await stubs.blue.RenewWorkspace(request)
        request.lease_duration.CopyFrom(seconds(120))
        await stubs.blue.RenewWorkspace(request)


@pytest.mark.parametrize(
    ("provider", "image", "field"),
    [("docker", "", "image"), ("docker", "python:3", "image"), ("local", "", "provider")],
)
async def test_pulls_are_of_what_may_be_used(stubs: Stubs, provider: str, image: str, field: str) -> None:
    with refused(DENIED, "NOT_ALLOWED", field):
        await call(stubs.strict, pb.PullImageRequest(provider=provider, image=image))
    with refused(UNAVAILABLE, "PROVIDER_UNAVAILABLE"):
        await call(stubs.strict, pb.PullImageRequest(provider="docker", image="node:22"))


async def test_server_tells_tenants_what_is_theirs(stubs: Stubs) -> None:
    async def told(stub: Stub) -> list[str]:
        info = await stub.GetServerInfo(pb.GetServerInfoRequest())
        return [provider.name for provider in info.providers]

    assert await told(stubs.red) == await told(stubs.admins) == ["docker", "local"]
    assert await told(stubs.strict) == ["docker"]


async def test_admins_are_told_whose_workspaces_are(stubs: Stubs, tenanted: Tenanted) -> None:
    async with a_workspace(stubs.red) as workspace:
        shown = ("--target", tenanted.served.target)
        environment = {"AGENTIC_ISOLATION_TOKEN": token_of("admins")}
        heading, row = (await asyncio.to_thread(run, "ls", *shown, environment=environment)).stdout.splitlines()
        assert heading.split()[:3] == ["WORKSPACE", "TENANT", "PROVIDER"]
        assert row.split()[:3] == [workspace.workspace_id, "red", "local"]


async def test_identity_that_is_nobodys(stubs: Stubs) -> None:
    with refused(DENIED, "NOT_ALLOWED") as caught:
        await stubs.stranger.GetServerInfo(pb.GetServerInfoRequest())
    assert "'token:stranger'" in caught.message


@pytest.fixture
async def mine(directory: Path) -> AsyncIterator[PoolingService]:
    """A service with tenants that is started again, and a pool for one of them. Over its unix socket all are admins."""
    async with pooling(PoolingService("local", directory, "--log-level", "warning", more=POOL + CONFIG)) as service:
        yield service


async def test_pool_of_a_tenant(mine: PoolingService) -> None:
    """Others get nothing out of it, and are told nothing of it."""
    async with mine.running() as stub:
        stubs = stubs_of(stub)
        await filled(stubs.admins)
        async with a_workspace(stubs.red, working_dir="/pool"):
            pool = await pool_of(stubs.admins)
            assert (pool.ready_count, pool.hits_count, pool.misses_count) == (1, 0, 0)
        async with a_workspace(stubs.blue, working_dir="/pool") as claimed:
            assert (await pool_of(stubs.admins)).hits_count == 1
            assert list(await listed(stubs.blue)) == [claimed.workspace_id]
            assert not await listed(stubs.red)
        for stub in (stubs.red, stubs.blue):
            assert not (await stub.GetServerInfo(pb.GetServerInfoRequest())).pools


@pytest.mark.parametrize("registry_is_lost", [False, True])
async def test_owners_outlive_the_service_and_its_registry(mine: PoolingService, registry_is_lost: bool) -> None:
    """Of workspaces that were made and that were claimed: where nothing is written down, their guests know."""
    async with mine.running() as stub:
        stubs = stubs_of(stub)
        await filled(stubs.admins)
        red = (await stubs.red.CreateWorkspace(create("local"))).workspace
        request = create("local", working_dir="/pool", request_id="same")
        blue = (await stubs.blue.CreateWorkspace(request)).workspace
        await stubs.red.Execute(execute(red, "echo here > file", linger=LINGER))
        await filled(stubs.admins)  # what is half made when the registry is lost is left to its lease
    await mine.end(signal.SIGKILL)
    if registry_is_lost:
        for file in mine.state.glob("registry.db*"):
            file.unlink()
    async with mine.running() as stub:
        stubs = stubs_of(stub)
        assert list(await listed(stubs.red)) == [red.workspace_id]
        assert list(await listed(stubs.blue)) == [blue.workspace_id]
        every = await listed(stubs.admins)
        tenants = {workspace.workspace_id: workspace.tenant for workspace in every.values()}
        assert tenants == {red.workspace_id: "red", blue.workspace_id: "blue"}
        assert await output(stubs.red, red, "cat file") == b"here\n"
        with refused(NOT_FOUND, "WORKSPACE_NOT_FOUND"):
            await output(stubs.blue, red, "cat file")
        if not registry_is_lost:
            assert (await stubs.blue.CreateWorkspace(request)).workspace.workspace_id == blue.workspace_id
            async with a_workspace(stubs.red, working_dir="/pool", request_id="same") as other:
                assert other.workspace_id != blue.workspace_id
        await destroy(stubs.red, red.workspace_id)
        await destroy(stubs.admins, blue.workspace_id)


async def test_tenant_that_is_no_more(mine: PoolingService, directory: Path) -> None:
    """Its workspaces are the admins' to see until their leases end; whoever comes has no others'."""
    async with mine.running() as stub:
        red = (await stubs_of(stub).red.CreateWorkspace(create("local"))).workspace
    await mine.end(signal.SIGTERM)
    without = CONFIG.replace(
        tenant_table("red", LOCAL), tenant_table("green", LOCAL).replace("token:green", "token:red")
    )
    directory.joinpath("config.toml").write_text(without)
    async with mine.running() as stub:
        stubs = stubs_of(stub)
        assert not await listed(stubs.red)
        assert list(await listed(stubs.admins)) == [red.workspace_id]
        await destroy(stubs.admins, red.workspace_id)


async def test_embedded_service_is_its_programs(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Whatever tenants the configuration has: it has no identity to show itself."""
    directory.joinpath("config.toml").write_text(CONFIG)
    monkeypatch.setenv("AGENTIC_ISOLATION_CONFIG", str(directory / "config.toml"))
    async with AgenticWorkspace.create(provider="local") as workspace:
        assert (await workspace.execute("echo hi")).stdout == "hi\n"
        assert not workspace.info.tenant


def test_tenants_without_anything_that_proves_who_calls(directory: Path) -> None:
    """The service does not start, in place of letting everybody in or nobody."""
    directory.joinpath("config.toml").write_text(tenant_table("red", LOCAL))
    refused = run("serve", "--address", "127.0.0.1:0", "--config", str(directory / "config.toml"))
    assert (refused.returncode, refused.stdout) == (125, "")
    assert "tenant: nothing proves who calls" in refused.stderr


def test_tenant_with_a_provider_that_there_is_not(directory: Path) -> None:
    directory.joinpath("config.toml").write_text(token_table("red") + tenant_table("red", 'providers = ["dokcer"]'))
    refused = run("serve", "--address", "127.0.0.1:0", "--config", str(directory / "config.toml"))
    assert (refused.returncode, refused.stdout) == (125, "")
    assert "tenant[0].providers[0]: there is no provider 'dokcer'" in refused.stderr
