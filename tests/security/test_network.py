"""A workspace with a network, attacked from inside: it reaches the outside and names, and nothing that is near."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import pytest_asyncio

from agentic_isolation import (
    IsolationUnavailableError,
    NetworkMode,
    ResourceLimits,
    SecurityConfig,
    WorkspaceConfig,
    WorkspaceDockerProvider,
    WorkspaceInfo,
)
from agentic_isolation_service.config import DNS_VARIABLE
from agentic_isolation_service.providers.docker.container import ErrandPlan, container_name
from agentic_isolation_service.providers.docker.engine import Engine as EngineClient
from agentic_isolation_service.providers.docker.network import NETWORK, Networks
from tests.engine import Engine
from tests.support import engine_leaks
from tests.support.eventually import eventually

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("network")]

NAME, ADDRESS, MANY = "workspace.test", "203.0.113.250", 60
REACH = """
import socket, sys
for address in sys.argv[1:]:
    host, port, interface = address.split(",")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as attempt:
        attempt.settimeout(5)
        try:
            if interface:
                attempt.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            attempt.connect((host, int(port)))
            print("reached")
        except OSError as error:
            print(type(error).__name__, error)
"""
SERVE = """
import socket, sys
with socket.create_server(("0.0.0.0", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        server.accept()[0].close()
"""
OWN_ADDRESS = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attempt:
    attempt.connect(("192.0.2.1", 9))
    print(attempt.getsockname()[0])
"""


@dataclass(frozen=True)
class Pair:
    """Two workspaces of one kind, with a network."""

    provider: WorkspaceDockerProvider
    one: WorkspaceInfo
    other: WorkspaceInfo

    async def run(self, workspace: WorkspaceInfo, script: str, *arguments: str) -> list[str]:
        """The lines that a Python script prints in a workspace."""
        result = await self.provider.execute(workspace, ["python3", "-c", script, *arguments], timeout=30)
        assert result.success, result.stderr
        return result.stdout.splitlines()

    async def reach(self, host: str, port: int) -> list[str]:
        """How connecting from the first workspace went: as its routes say, and past them."""
        return await self.run(self.one, REACH, f"{host},{port},", f"{host},{port},eth0")


def config(**security: Any) -> WorkspaceConfig:
    return WorkspaceConfig(
        security=replace(SecurityConfig.production(), **security), limits=ResourceLimits(network=True), lease=60
    )


@pytest.fixture(scope="module")
def outside(engine: Engine) -> str:
    """An address of this machine that workspaces reach like any other machine's."""
    if engine.host_address is None:
        pytest.skip("this machine has no address that the engine's containers reach")
    return engine.host_address


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[pytest.param(False, id="runc"), pytest.param(True, id="gvisor", marks=pytest.mark.gvisor)],
)
async def pair(request: pytest.FixtureRequest, outside: str) -> AsyncIterator[Pair]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(DNS_VARIABLE, outside)
        provider = WorkspaceDockerProvider()
    async with contextlib.AsyncExitStack() as stack:
        workspaces = []
        for _ in range(2):
            workspaces.append(await provider.create(config(use_gvisor=request.param)))
            stack.push_async_callback(provider.destroy, workspaces[-1])
        yield Pair(provider, *workspaces)


@contextlib.asynccontextmanager
async def server(address: str) -> AsyncIterator[int]:
    """A server in this process; yields its port."""
    async with await asyncio.start_server(lambda _, writer: writer.close(), address, 0) as listening:
        yield listening.sockets[0].getsockname()[1]
    for _ in range(10):  # turns, for a connection that was taken in the last one
        await asyncio.sleep(0)


async def test_reaches_other_machines_and_says_so(pair: Pair, outside: str) -> None:
    async with server(outside) as port:
        assert await pair.reach(outside, port) == ["reached", "reached"]
    assert pair.one.isolation.network is NetworkMode.OUTBOUND


async def test_reaches_no_metadata_address(pair: Pair, engine: Engine) -> None:
    if engine.link_local_address is None:
        pytest.skip("only a private engine has a link-local address that this machine serves")
    async with server(engine.link_local_address) as port:
        assert "reached" not in await pair.reach(engine.link_local_address, port)


async def test_has_no_ipv6(pair: Pair) -> None:
    for host in ("fd00:ec2::254", "2001:db8::1"):
        assert "reached" not in await pair.reach(host, 80)
    assert await pair.run(pair.one, "print(*[i for i in open('/proc/net/if_inet6') if i.split()[-1] != 'lo'])") == [""]


async def test_does_not_reach_another_workspace(pair: Pair) -> None:
    [address] = await pair.run(pair.other, OWN_ADDRESS)
    async with pair.provider.stream(pair.other, ["python3", "-c", SERVE]) as serving:
        port = int(await anext(aiter(serving)))
        assert await pair.run(pair.other, REACH, f"{address},{port},") == ["reached"], "the control"
        assert "reached" not in await pair.reach(address, port)


async def test_does_not_reach_the_engines_host(pair: Pair, engine: Engine) -> None:
    if not engine.private:
        pytest.skip("only a private engine's host is this machine")
    [entry] = engine.api.json("GET", f"/networks/{NETWORK}")["IPAM"]["Config"]
    routes = await pair.run(pair.one, "print(open('/proc/net/route').read())")
    [gateway] = [line.split()[2] for line in routes[1:] if line.split()[1:2] == ["00000000"]]
    host = ".".join(str(byte) for byte in bytes.fromhex(gateway)[::-1])
    assert entry["Gateway"] == host or "Gateway" not in entry
    process = await asyncio.create_subprocess_exec(
        *engine.nsenter("python3", "-c", SERVE), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        control = await asyncio.create_subprocess_exec(
            *engine.nsenter("python3", "-c", REACH, f"{host},{port},"), stdout=asyncio.subprocess.PIPE
        )
        assert (await control.communicate())[0] == b"reached\n"
        assert "reached" not in await pair.reach(host, port)
    finally:
        process.kill()
        await process.communicate()


class NameServer(asyncio.DatagramProtocol):
    """Answers for NAME, with one address over UDP and, for the asking of `many.NAME`, with more than fit."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.transport.sendto(answer_to(data, stream=False), addr)


async def serve_names(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            [size] = struct.unpack("!H", await reader.readexactly(2))
            answer = answer_to(await reader.readexactly(size), stream=True)
            writer.write(struct.pack("!H", len(answer)) + answer)
            await writer.drain()


def answer_to(query: bytes, *, stream: bool) -> bytes:
    """An answer of RFC 1035's shape to a query with one question."""
    end = query.index(b"\0", 12) + 5
    question, wants_address = query[12:end], query[end - 4 : end - 2] == b"\0\1"
    count = (MANY if question.startswith(b"\4many") else 1) if wants_address else 0
    truncated = count > 1 and not stream
    flags = 0x8580 | (0x0200 if truncated else 0)
    count = 0 if truncated else count
    records = [b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + bytes([203, 0, 113, 250 if count == 1 else i]) for i in range(count)]
    return query[:2] + struct.pack("!HHHHH", flags, 1, count, 0, 0) + question + b"".join(records)


@contextlib.asynccontextmanager
async def name_server(address: str) -> AsyncIterator[None]:
    """A name server at an address's port 53, which other test runs may hold for a moment."""
    loop = asyncio.get_running_loop()
    listening: list[asyncio.Server] = []
    conversations: list[asyncio.Task[None]] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.append(cast("asyncio.Task[None]", asyncio.current_task()))
        await serve_names(reader, writer)
        await writer.wait_closed()

    async def listens() -> bool:
        with contextlib.suppress(OSError):
            listening.append(await asyncio.start_server(converse, address, 53))
        return bool(listening)

    await eventually(listens, "port 53 is free", within=30)
    async with listening[0]:
        transport, datagrams = await loop.create_datagram_endpoint(NameServer, (address, 53))
        try:
            yield
        finally:
            transport.close()
            # The module's loop stands still between tests: what is closed must be closed by then.
            await datagrams.closed.wait()
            await asyncio.gather(*conversations)


async def test_resolves_names_by_its_name_servers(pair: Pair, outside: str) -> None:
    script = """
import json, socket
def addresses(name):
    return sorted({found[4][0] for found in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})
print(json.dumps([addresses("workspace.test"), addresses("many.workspace.test")]))
"""
    async with name_server(outside):
        [printed] = await pair.run(pair.one, script)
    one, many = json.loads(printed)
    assert one == [ADDRESS]
    assert len(many) == MANY


async def test_leaves_no_errand_and_no_network_of_its_own(pair: Pair, engine: Engine) -> None:
    names = [name for container in engine_leaks.containers(engine) for name in container["Names"]]
    assert f"/{container_name(pair.one.id)}" in names
    assert not [name for name in names if "errand" in name]
    assert engine_leaks.networks(engine) == []


@pytest.fixture
def names(engine: Engine) -> Iterator[tuple[str, str]]:
    """Names of a network and its interface that nobody has. The network is removed."""
    unique = uuid.uuid4().hex[:8]
    yield f"agentic-test-{unique}", f"at-{unique}"
    for network in networks(engine, f"agentic-test-{unique}"):
        engine.api.request("DELETE", f"/networks/{network['Id']}")


def networks(engine: Engine, name: str) -> list[dict[str, Any]]:
    found = engine.api.json("GET", "/networks", query={"filters": json.dumps({"name": [name]})})
    return [network for network in found if network["Name"] == name]


def impossible(engine: Engine) -> ErrandPlan:
    return ErrandPlan(engine.images.tiny, "no-such-runtime", "agentic-test-nothing", {})


async def test_no_firewall_is_no_network(engine: Engine, names: tuple[str, str]) -> None:
    name, bridge = names
    client = EngineClient(engine.docker_host)
    try:
        async with client.client() as docker:
            services = [Networks(("203.0.113.1",), name=name, bridge=bridge) for _ in range(4)]
            ends = await asyncio.gather(
                *(service.ensure(docker, impossible(engine)) for service in services), return_exceptions=True
            )
    finally:
        await client.aclose()
    for end in ends:
        assert isinstance(end, IsolationUnavailableError)
        assert end.field == "limits.network"
        assert "no-such-runtime" in str(end)
    assert len(networks(engine, name)) == 1, "services that start at the same time share one network"


async def test_another_network_of_the_same_name_is_refused(engine: Engine, names: tuple[str, str]) -> None:
    name, bridge = names
    engine.api.json("POST", "/networks/create", content={"Name": name})
    client = EngineClient(engine.docker_host)
    try:
        async with client.client() as docker:
            with pytest.raises(IsolationUnavailableError, match="docker network rm"):
                await Networks(("203.0.113.1",), name=name, bridge=bridge).ensure(docker, impossible(engine))
    finally:
        await client.aclose()
