"""Replicas that get other addresses when they are started anew, each other's among them, as containers and pods do."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
from tests.integration.wire import Stub, connected
from tests.support.envoy import Envoy
from tests.support.eventually import eventually
from tests.support.name_server import NameServer
from tests.support.program import CHECKOUT
from tests.support.replica import Replica, free_port

DEPLOY = CHECKOUT / "deploy"
REPLICAS = ("one", "two")
ADDRESSES = ("127.0.0.2", "127.0.0.3")
TIMES = 20
"""Of which half went wrong where Envoy held both addresses for one replica's."""
SHORT = 0.5
"""Seconds for a call that is to wait for its replica."""


@pytest.fixture
def ground(forks: None) -> None:
    """It has a mesh of its own."""


class Mesh:
    """Replicas, and an Envoy that asks a name server where they are.

    Args:
        directory: Where everything lies.
        names: The name server.
        options: More options of the replicas, by their names.
        change: Changes Envoy's configuration further.
    """

    def __init__(
        self, directory: Path, names: NameServer, options: Mapping[str, list[str]], change: Callable[[str], str]
    ) -> None:
        self._directory = directory
        self._names = names
        self._options = options
        self._change = change
        self._port = free_port()
        self._at = dict(zip(REPLICAS, ADDRESSES, strict=True))
        self._running: list[Replica] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Envoy]:
        """Runs all of it."""
        try:
            await self.start()
            self.tell()
            ports = dict.fromkeys(REPLICAS, self._port)
            envoy = await asyncio.to_thread(Envoy, self._directory / "envoy", ports, self._configuration)
            try:
                yield envoy
            finally:
                envoy.kill()
        finally:
            await self.end()

    async def swap(self) -> None:
        """Starts the replicas anew, each at the other's address; the name server tells the old ones until `tell`."""
        await self.end()
        self._at = dict(zip(REPLICAS, reversed(list(self._at.values())), strict=True))
        await self.start()

    def tell(self) -> None:
        """Has the name server tell where they are now."""
        self._names.addresses = dict(self._at)

    async def start(self) -> None:
        """Starts the replicas."""
        self._running = [
            Replica(name, self._directory, *self._options.get(name, ()), address=f"{address}:{self._port}")
            for name, address in self._at.items()
        ]
        await asyncio.gather(*(replica.start() for replica in self._running))

    async def end(self) -> None:
        """Kills the replicas."""
        members, self._running = self._running, []
        await asyncio.gather(*(replica.end(signal.SIGKILL) for replica in members if replica.process is not None))

    def _configuration(self, text: str) -> str:
        for name in REPLICAS:
            old = "- endpoint: {address: {socket_address: {address: 127.0.0.1, "
            text = text.replace(old, old.replace("127.0.0.1", name), 1)
        asked = f"{{socket_address: {{address: 127.0.0.1, port_value: {self._names.port}}}}}"
        resolver = (
            "    dns_refresh_rate: 0.2s\n    dns_lookup_family: V4_ONLY\n    typed_dns_resolver_config:\n"
            "      name: envoy.network.dns_resolver.cares\n      typed_config:\n"
            '        "@type": type.googleapis.com/'
            "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig\n"
            f"        resolvers: [{asked}]\n        dns_resolver_options: {{no_default_search_domain: true}}\n"
        )
        assert text.count("    type: STRICT_DNS") == 1
        return self._change(text.replace("    type: STRICT_DNS", f"{resolver}    type: STRICT_DNS"))


async def answers(stub: Stub, name: str, token: str = "", timeout: float | None = None) -> str:
    """Returns which replica answers when one is asked for by its name, or what is said in its place."""
    metadata = [("agentic-isolation-replica", name)]
    if token:
        metadata.append(("authorization", f"Bearer {token}"))
    try:
        told = await stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=tuple(metadata), timeout=timeout)
    except grpc.aio.AioRpcError as error:
        return str(error.code())
    return told.replica


async def are_found(stub: Stub, token: str = "") -> bool:
    """Whether each replica answers whenever it is asked for."""
    found = [[await answers(stub, name, token) for name in REPLICAS] for _ in range(TIMES)]
    return found == [list(REPLICAS)] * TIMES


async def test_replicas_that_swap_addresses(directory: Path) -> None:
    async with NameServer.running() as names:
        mesh = Mesh(directory, names, {}, lambda text: text)
        async with mesh.running() as envoy, connected(envoy.target) as stub:
            assert await are_found(stub)
            await mesh.swap()
            mesh.tell()
            await eventually(lambda: are_found(stub), "each is found at its new address, and nowhere else")


@contextlib.asynccontextmanager
async def composition(directory: Path, names: NameServer) -> AsyncIterator[tuple[Mesh, Envoy, Stub, str]]:
    """Runs a mesh as compose.yaml has it; yields it, its Envoy, what calls that, and the token to show."""
    if shutil.which("openssl") is None:
        pytest.skip("install openssl: it makes the certificates")
    trial, envoy_directory = directory / "trial", directory / "envoy"
    await asyncio.to_thread(subprocess.run, [DEPLOY / "trial.sh", trial], check=True, capture_output=True, timeout=30)
    options = {}
    for name in REPLICAS:
        settings = (trial / "service.toml").read_text().replace("/etc/agentic-isolation/tls", f"{trial}/{name}")
        (directory / f"{name}.toml").write_text(settings.replace("0.0.0.0:9464", "127.0.0.1:0"))
        options[name] = ["--config", str(directory / f"{name}.toml")]

    def composed(text: str) -> str:
        (envoy_directory / "envoy.yaml").write_text(text)
        environment = {"ENVOY_DIRECTORY": str(envoy_directory), "ENVOY_TLS": str(trial / "envoy")}
        command = [str(DEPLOY / "envoy-for-compose.sh"), "--print"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    credentials = grpc.ssl_channel_credentials(
        *((trial / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem"))
    )
    mesh = Mesh(directory, names, options, composed)
    async with mesh.running() as envoy, grpc.aio.secure_channel(envoy.target, credentials) as channel:
        yield mesh, envoy, pb_grpc.WorkspaceServiceStub(channel), (trial / "client.token").read_text().strip()


async def test_composition_takes_no_replica_for_the_other(directory: Path) -> None:
    """Until Envoy has heard of it, a replica that is not where it was is one that is away."""
    async with NameServer.running() as names, composition(directory, names) as (mesh, _, stub, token):
        assert await are_found(stub, token)
        await mesh.swap()
        told = [await answers(stub, name, token, SHORT) for _ in range(3) for name in REPLICAS]
        assert set(told) == {str(grpc.StatusCode.DEADLINE_EXCEEDED)}, "it was sent to the other one"
        mesh.tell()
        await eventually(lambda: are_found(stub, token), "each is found at its new address")


async def test_composition_waits_for_a_replica_that_has_no_address(directory: Path) -> None:
    """The name of a container that is started anew is nobody's for a moment."""
    async with NameServer.running() as names, composition(directory, names) as (mesh, envoy, stub, token):
        assert await are_found(stub, token)
        before = (await envoy.counted())["membership_total"]
        await mesh.end()
        names.addresses.clear()

        async def gone() -> bool:
            return (await envoy.counted())["membership_total"] == before - len(REPLICAS)

        await eventually(gone, "Envoy has heard of it")
        calls = [asyncio.create_task(answers(stub, name, token)) for name in REPLICAS]
        await asyncio.sleep(SHORT)
        assert not any(call.done() for call in calls)
        await mesh.start()
        mesh.tell()
        assert await asyncio.gather(*calls) == list(REPLICAS)
