"""Users of a unix socket are told apart by what the kernel says of who has connected, and by nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from agentic_isolation import AgenticWorkspace, Credentials, NotAllowedError, UnavailableError
from agentic_isolation.service import ServiceClient
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.tokens import StaticToken
from agentic_isolation_service.rpc.relay import Relay
from agentic_isolation_service.rpc.socket_users import SocketUser, address_of, described, user_of
from agentic_isolation_service.rpc.unix_socket import SocketAccess
from agentic_isolation_service.serving import serve
from agentic_isolation_service.settings.audit import AuditSettings
from agentic_isolation_service.settings.file import FileSettings
from agentic_isolation_service.settings.tenants import tenants_of
from agentic_isolation_service.settings.unix import UnixSettings
from tests.integration.auditing import entries
from tests.integration.identified import identified
from tests.integration.other_users import NOBODY, as_root, asked, connects, mode_of
from tests.support.service import ServedProcess

ME = os.geteuid()
STRANGER = 54321
ASK = """
import os, sys
import grpc
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
path, uid, workspace_id = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
with grpc.insecure_channel(f"unix:{path}") as channel:
    stub = pb_grpc.WorkspaceServiceStub(channel)
    try:
        if workspace_id:
            stub.GetWorkspace(pb.GetWorkspaceRequest(workspace_id=workspace_id), timeout=30)
        else:
            stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=30)
        print("OK")
    except grpc.RpcError as error:
        print(error.code().name, error.details())
"""


async def answered(path: Path, uid: int, workspace_id: str = "") -> str:
    """Returns what a process of a user is answered that asks for a workspace, or for nothing but the server."""

    def run() -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-c", ASK, str(path), str(uid), workspace_id]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)

    ended = await asyncio.to_thread(run)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def in_directory(directory: Path) -> set[Path]:
    return set(directory.iterdir())


def config_at(path: Path, unix: UnixSettings, *, mode: int = 0o600, **settings: object) -> ServiceConfig:
    file = FileSettings(unix=unix, **settings)  # type: ignore[arg-type]
    return ServiceConfig(address=f"unix:{path}", socket_mode=mode, grace=0, file=file)


@as_root
async def test_users_are_told_apart_and_strangers_refused(common: Path) -> None:
    path = common / "s"
    users = UnixSettings(users=frozenset({ME, NOBODY}))
    async with identified(config_at(path, users, mode=0o666)) as service:
        await asked(service.target)
        assert await answered(path, NOBODY) == "OK"
        assert await answered(path, STRANGER) == (
            f"PERMISSION_DENIED user {STRANGER} of this machine may not use the service; it is not in [unix] users"
        )
        assert [caller.identity for caller in service.callers] == [f"unix:{ME}", f"unix:{NOBODY}"]


@as_root
async def test_users_are_tenants(common: Path) -> None:
    path = common / "s"
    tables = [
        {"name": "mine", "identities": [f"unix:{ME}"], "providers": ["local"]},
        {"name": "theirs", "identities": [f"unix:{NOBODY}"]},
    ]
    config = config_at(path, UnixSettings(), mode=0o666, tenants=tenants_of(tables, ()))
    async with serve(config) as target, AgenticWorkspace.create(provider="local", target=target) as ws:
        assert (await ws.execute("echo mine")).stdout == "mine\n"
        assert (await answered(path, NOBODY, ws.id)).startswith("NOT_FOUND")
        assert (await answered(path, STRANGER, ws.id)).startswith("PERMISSION_DENIED")


async def test_user_who_is_not_named_is_refused_with_a_token_too(directory: Path) -> None:
    path = directory / "s"
    token = StaticToken(name="ci", sha256=hashlib.sha256(b"secret").hexdigest())
    async with serve(config_at(path, UnixSettings(users=frozenset({ME + 1})), tokens=(token,))) as target:
        for credentials in (Credentials(), Credentials(token="secret")):
            async with ServiceClient(target, credentials=credentials) as client:
                with pytest.raises(NotAllowedError, match=f"user {ME} "):
                    await client.info()


async def test_token_goes_before_its_user(directory: Path) -> None:
    token = StaticToken(name="ci", sha256=hashlib.sha256(b"secret").hexdigest())
    async with identified(config_at(directory / "s", UnixSettings(), tokens=(token,))) as service:
        async with ServiceClient(service.target, credentials=Credentials(token="secret")) as client:
            await client.info()
        await asked(service.target)
        assert [caller.identity for caller in service.callers] == ["token:ci", f"unix:{ME}"]


@as_root
async def test_socket_behind_the_relay_is_no_way_in(common: Path) -> None:
    path = common / "s"
    async with serve(config_at(path, UnixSettings(users=frozenset({NOBODY})), mode=0o666)):
        assert await connects(path)
        [inner] = in_directory(common) - {path}
        assert stat.S_ISSOCK(inner.stat().st_mode)
        assert mode_of(inner) == 0o600
        assert not await connects(inner)
        # Whoever may, as root, is still nobody: also with a name like those of the relay.
        assert (await answered(inner, 0)).startswith("UNAUTHENTICATED")
        name = f"\0agentic-isolation-{'0' * 32}/{NOBODY}/1/0".encode()
        async with _named(name, inner) as target, grpc.aio.insecure_channel(target) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await pb_grpc.WorkspaceServiceStub(channel).GetServerInfo(pb.GetServerInfoRequest())
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@contextlib.asynccontextmanager
async def _named(name: bytes, path: Path) -> AsyncIterator[str]:
    """Passes one connection on to a path, from a socket of a name, and yields where it takes that."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.bind(name)
            connection.connect(str(path))
            connection.setblocking(False)
            inner_reader, inner_writer = await asyncio.open_unix_connection(sock=connection)
            await asyncio.wait(
                [asyncio.ensure_future(_copy(reader, inner_writer)), asyncio.ensure_future(_copy(inner_reader, writer))]
            )

    server = await asyncio.start_unix_server(pass_on, f"{path}-named")
    async with server:
        yield f"unix:{path}-named"
    await asyncio.sleep(0)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
    writer.close()


async def test_audit_log_says_which_process_of_whom(directory: Path) -> None:
    log = directory / "audit.jsonl"
    async with serve(config_at(directory / "s", UnixSettings(), audit=AuditSettings(path=log))) as target:
        await asked(target)
    [peer] = {entry["peer"] for entry in entries(log) if entry.get("method") == "GetServerInfo"}
    assert peer == f"unix:uid={ME},pid={os.getpid()}"


async def test_calls_under_way_have_their_grace_and_nothing_is_left(directory: Path) -> None:
    path = directory / "s"
    file = FileSettings(unix=UnixSettings())
    async with serve(ServiceConfig(address=f"unix:{path}", grace=20, file=file)) as target:
        ws = await AgenticWorkspace.create(provider="local", target=target, retry_timeout=0)
        running = asyncio.create_task(ws.execute("sleep 1; head -c 1000000 /dev/zero"))
        await asyncio.sleep(0.5)
    assert len((await running).stdout) == 1_000_000
    assert not in_directory(directory)
    with contextlib.suppress(UnavailableError):
        await ws.close()


async def test_service_takes_the_place_of_one_that_was_killed(directory: Path) -> None:
    path, settings = directory / "s", directory / "settings.toml"
    settings.write_text(f'[unix]\nusers = ["{ME}"]\n')
    options = ("--address", f"unix:{path}", "--config", str(settings))
    with ServedProcess(*options) as served:
        await asked(served.target)
        served.kill()
        assert len(in_directory(directory)) == 2 + 1, "the sockets, which nobody could remove, and the settings"
    with ServedProcess(*options) as served:
        await asked(served.target)
    assert in_directory(directory) == {settings}


def test_peers_are_described_for_people() -> None:
    peer = address_of(SocketUser(1000, 42), 7).decode().replace("\0", "unix-abstract:")
    assert user_of(peer) == (1000, 42)
    assert described(peer) == "unix:uid=1000,pid=42"
    for other in ("unix:", "unix:/run/1000/42/7", "ipv4:127.0.0.1:5", "unix-abstract:agentic-isolation-/0/0/0"):
        assert user_of(other) is None
        assert described(other) == other


SENT = 64 << 20
"""Bytes."""


class Sending:
    """A server that sends a lot to each who connects, and counts what it has got rid of."""

    def __init__(self) -> None:
        self.sent = 0
        self.connections = 0
        self.left = asyncio.Event()
        """Set when somebody has gone."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        piece = b"x" * (1 << 16)
        with contextlib.suppress(ConnectionError):
            while self.sent < SENT:
                writer.write(piece)
                await writer.drain()
                self.sent += len(piece)
            await reader.read()
        self.left.set()
        writer.close()


@contextlib.asynccontextmanager
async def relaying(path: Path, *, most: int = 100) -> AsyncIterator[Sending]:
    """Has a relay at the path, and a server behind it."""
    relay, sending = Relay(str(path), most=most), Sending()
    server = await asyncio.start_unix_server(sending.serve, relay.inner_path)
    await relay.listen(SocketAccess())
    try:
        yield sending
    finally:
        server.close()
        await relay.aclose(1)
        assert path not in in_directory(path.parent)


async def test_what_nobody_takes_waits_at_the_server(directory: Path) -> None:
    async with relaying(directory / "s") as sending:
        reader, writer = await asyncio.open_unix_connection(str(directory / "s"), limit=1 << 16)
        before = -1
        while sending.sent != before:
            before = sending.sent
            await asyncio.sleep(0.2)
        assert 0 < sending.sent < 4 << 20
        received = 0
        while received < SENT:
            received += len(await reader.read(1 << 20))
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b"", "the server has gone too"
        writer.close()


async def test_those_beyond_the_most_are_hung_up_on(directory: Path) -> None:
    async with relaying(directory / "s", most=2) as sending:
        taken = [await asyncio.open_unix_connection(str(directory / "s")) for _ in range(2)]
        for reader, _ in taken:
            await reader.readexactly(1)
        reader, writer = await asyncio.open_unix_connection(str(directory / "s"))
        with contextlib.suppress(ConnectionError):
            assert await reader.read(1) == b""
        writer.close()
        assert sending.connections == 2
        taken[0][1].transport.abort()
        await asyncio.wait_for(sending.left.wait(), 10)
        reader, writer = await asyncio.open_unix_connection(str(directory / "s"))
        await reader.readexactly(1)
        for _, left in (*taken, (reader, writer)):
            left.transport.abort()


async def test_connection_ends_where_there_is_no_server(directory: Path) -> None:
    relay = Relay(str(directory / "s"), most=2)
    await relay.listen(SocketAccess())
    reader, writer = await asyncio.open_unix_connection(str(directory / "s"))
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(1), 10) == b""
    writer.close()
    await relay.aclose(1)
