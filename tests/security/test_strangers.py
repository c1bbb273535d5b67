"""Whoever reaches the port and proves nothing: the service stays there for others, stays small, and says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.rpc.openings import MOST, MOST_ELSEWHERE
from tests.integration.tenancy import stub_of, tenant_table, token_of, token_table
from tests.integration.wire import a_workspace, argv, connected
from tests.support import h2
from tests.support.eventually import eventually
from tests.support.memory import stays_flat
from tests.support.open_files import open_files
from tests.support.service import ServedProcess

ASK = "/agentic_isolation.v1.WorkspaceService/GetServerInfo"
EXECUTE = "/agentic_isolation.v1.WorkspaceService/Execute"
ATTACH = "/agentic_isolation.v1.WorkspaceService/Attach"
REMEMBERED = b"\x40\x03abc\x7f\xa1\x1e" + 4_000 * b"x"
"""A header that is remembered for the connection (RFC 7541, section 6.2.1)."""
AGAIN = b"\xbe"
"""The same again."""


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Options of a service that knows somebody."""
    config = tmp_path / "config.toml"
    config.write_text(token_table("known") + tenant_table("known", 'providers = ["local"]'))
    return ["--address", "127.0.0.1:0", "--config", str(config)]


@pytest.fixture
def served(options: list[str]) -> Iterator[ServedProcess]:
    with ServedProcess(*options) as served:
        yield served
        assert served.log.count("\n") <= 1, f"it does not stay silent: {served.log[:2_000]}"


@contextlib.asynccontextmanager
async def stranger(
    served: ServedProcess, *, acknowledges: bool = True
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of somebody who speaks HTTP/2, and keeps to the service's settings if they acknowledge them."""
    host, _, port = served.target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    with contextlib.closing(writer):
        writer.write(h2.PREFACE + h2.frame(h2.SETTINGS))
        assert await h2.kind_of_next(reader) == (h2.SETTINGS, 0)
        if acknowledges:
            writer.write(h2.frame(h2.SETTINGS, flags=h2.ACKNOWLEDGED))  # from now on its windows are the service's
        yield reader, writer


async def ends(reader: asyncio.StreamReader, count: int) -> None:
    """Waits for the ends of so many calls."""
    async with asyncio.timeout(30):
        while count:
            kind, flags = await h2.kind_of_next(reader)
            count -= kind == h2.HEADERS and bool(flags & h2.END_STREAM)


async def works(served: ServedProcess) -> None:
    """Fails where the service does not answer those whom it knows."""
    async with connected(served.target) as stub:
        await stub_of(stub, "known").GetServerInfo(pb.GetServerInfoRequest(), timeout=10)


async def test_metadata_without_end(served: ServedProcess) -> None:
    """Of one who has not heard yet that the service remembers no headers."""
    async with stranger(served, acknowledges=False) as (reader, writer):
        for number in range(20):
            headers = h2.call_headers(ASK) + REMEMBERED + 3_000 * AGAIN
            writer.write(h2.frame(h2.HEADERS, headers, h2.END_HEADERS, stream=2 * number + 1))
        await ends(reader, 5)
    await works(served)


async def test_metadata_that_are_not_remembered(served: ServedProcess) -> None:
    """Whoever refers to them all the same breaks the protocol, and loses the connection."""
    async with stranger(served) as (reader, writer):
        headers = h2.call_headers(ASK) + REMEMBERED + AGAIN
        writer.write(h2.frame(h2.HEADERS, headers, h2.END_HEADERS, stream=1))
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
    await works(served)


@pytest.mark.parametrize("method", [ASK, ATTACH, "/grpc.health.v1.Health/Check", EXECUTE])
async def test_calls_that_send_no_message(served: ServedProcess, method: str) -> None:
    count = 2 * MOST
    async with stranger(served) as (reader, writer):
        for number in range(count):
            writer.write(h2.frame(h2.HEADERS, h2.call_headers(method), h2.END_HEADERS, stream=2 * number + 1))
            if number % 50 == 0:
                await asyncio.sleep(0.05)  # of more at a time gRPC itself refuses some
        await ends(reader, count - MOST)
        await works(served)


@pytest.mark.parametrize("method", [ASK, ATTACH, "/grpc.health.v1.Health/Check", EXECUTE])
async def test_calls_that_end_without_a_message(served: ServedProcess, method: str) -> None:
    """Each is answered: what is not stays for as long as its client likes, whoever that is."""
    count = 200
    async with stranger(served) as (reader, writer):
        for number in range(count):
            flags = h2.END_HEADERS | h2.END_STREAM
            writer.write(h2.frame(h2.HEADERS, h2.call_headers(method), flags, stream=2 * number + 1))
            if number % 50 == 0:
                await asyncio.sleep(0.05)  # of more at a time gRPC itself refuses some
        await ends(reader, count)
    await works(served)


@pytest.mark.parametrize(
    "method", [ASK, "/agentic_isolation.v1.WorkspaceService/Stream", "/grpc.health.v1.Health/Check"]
)
@pytest.mark.parametrize("data", [b"", bytes(4) + b"\3" + 3 * b"\xff"], ids=["none", "broken"])
async def test_call_that_asks_for_nothing(served: ServedProcess, method: str, data: bytes) -> None:
    async with stranger(served) as (reader, writer):
        writer.write(h2.frame(h2.HEADERS, h2.call_headers(method), h2.END_HEADERS, stream=1))
        writer.write(h2.frame(h2.DATA, data, h2.END_STREAM, stream=1))
        await ends(reader, 1)
    await works(served)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_message_that_is_large_once_it_is_unpacked(served: ServedProcess, encoding: str) -> None:
    size = 256 << 20
    packed = zlib.compress(bytes(size), wbits=31 if encoding == "gzip" else 15)
    assert len(packed) < 1 << 20
    message = b"\1" + len(packed).to_bytes(4) + packed
    headers = h2.call_headers(ASK) + h2.literal("grpc-encoding", encoding)
    await works(served)
    async with stranger(served) as (reader, writer):
        with stays_flat(served.pid, within=size // 4):
            writer.write(h2.frame(h2.HEADERS, headers, h2.END_HEADERS, stream=1))
            for begin in range(0, len(message), h2.FRAME):
                writer.write(h2.frame(h2.DATA, message[begin : begin + h2.FRAME], stream=1))
            await ends(reader, 1)
    await works(served)


async def test_reflection_without_end(served: ServedProcess) -> None:
    """Nobody counts these among the calls of a tenant, whose ever they are."""
    question = reflection_pb2.ServerReflectionRequest(list_services="*")
    shown = (("authorization", f"Bearer {token_of('known')}"),)
    async with grpc.aio.insecure_channel(served.target) as channel:
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub
        stub = reflection(channel)

        async def asked() -> Any:
            call = stub.ServerReflectionInfo(metadata=shown)
            await call.write(question)
            answer = await call.read()
            return call, answer

        calls = []
        for _ in range(MOST_ELSEWHERE // 50):
            calls += await asyncio.gather(*(asked() for _ in range(50)))
        assert all(answer is not grpc.aio.EOF for _, answer in calls)
        with pytest.raises(grpc.aio.AioRpcError, match="such calls are open"):
            await stub.ServerReflectionInfo([question], metadata=shown).read()
        await works(served)


async def test_connections_without_end(options: list[str]) -> None:
    with contextlib.ExitStack() as stack:
        with open_files(400):
            served = stack.enter_context(ServedProcess(*options, from_nothing=True))
        host, _, port = served.target.rpartition(":")
        async with connected(served.target) as stub, contextlib.AsyncExitStack() as connections:
            known = stub_of(stub, "known")
            await known.ListWorkspaces(pb.ListWorkspacesRequest(), timeout=10)
            for _ in range(500):
                _, writer = await asyncio.open_connection(host, int(port))
                connections.callback(writer.close)
            async with a_workspace(known) as workspace:
                await known.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=argv("true")))
            await known.GetServerInfo(pb.GetServerInfoRequest(), timeout=10)
            await connections.aclose()
            await eventually(lambda: answers(served), "there is room for others", within=20)
        assert "defect" not in served.log


async def answers(served: ServedProcess) -> bool:
    with contextlib.suppress(grpc.aio.AioRpcError):
        await works(served)
        return True
    return False
