"""Engines that are reached over TCP, plain and with mutual TLS."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from agentic_isolation import (
    ProviderUnavailableError,
    SecurityConfig,
    UnavailableError,
    WorkspaceConfig,
    WorkspaceDockerProvider,
)
from tests.engine import Engine
from tests.support import certificates
from tests.support.engine_leaks import container_of
from tests.support.engine_proxy import EngineProxy
from tests.support.eventually import eventually
from tests.support.jobs import bulk, bulk_block

pytestmark = pytest.mark.docker
CONFIG = WorkspaceConfig(security=SecurityConfig(use_gvisor=False), lease=60)
BLOCKS = 100


@pytest.fixture
async def keys(directory: Path) -> Path:
    """A directory as DOCKER_CERT_PATH names it, with the server's certificate beside."""
    if not shutil.which("openssl"):
        pytest.skip("install openssl: it makes the certificates of this test")
    await asyncio.to_thread(certificates.make, directory / "keys")
    return directory / "keys"


@pytest.fixture(params=["tcp", "tls"])
async def remote(
    request: pytest.FixtureRequest, engine: Engine, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EngineProxy]:
    """The engine behind a port, with what the environment needs to say."""
    if request.param == "tls":
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(keys))
    tls = certificates.server_context(keys) if request.param == "tls" else None
    async with EngineProxy(engine, tls=tls) as proxy:
        yield proxy


async def test_everything_works(engine: Engine, remote: EngineProxy) -> None:
    """Bulk in both directions, streams at the same time, and no bridge that outlives its connection."""
    provider = WorkspaceDockerProvider(host=remote.docker_host)
    workspace = await provider.create(CONFIG)
    try:
        data = bytes(range(256)) * (BLOCKS << 8)
        await provider.write_file(workspace, "data", data)
        assert await provider.read_file(workspace, "data") == data

        async def read() -> bytes:
            output = b""
            async for line in provider.stream(workspace, bulk(BLOCKS)):
                output += line.encode() + b"\n"
            return output

        expected = b"".join(bulk_block(number) for number in range(BLOCKS))
        for output in await asyncio.gather(read(), read()):
            assert output == expected
        assert (await provider.execute(workspace, "cat", stdin=data[:1000])).success

        await remote.reset()
        container = container_of(engine, workspace.id)

        async def answers() -> bool:
            try:
                return (await provider.execute(workspace, "true")).success
            except UnavailableError:
                return False

        await eventually(answers, "there is a bridge again")

        def bridges() -> int:
            processes = engine.api.json("GET", f"/containers/{container}/top")["Processes"]
            return sum("bridge" in " ".join(words) for words in processes)

        await eventually(lambda: bridges() == 1, "the bridge before is gone")
    finally:
        await provider.destroy(workspace)


async def refusal_of(host: str) -> str:
    with pytest.raises(ProviderUnavailableError) as raised:
        await WorkspaceDockerProvider(host=host).create(CONFIG)
    assert host in str(raised.value)
    return str(raised.value)


async def test_keys_that_do_not_fit(
    engine: Engine, keys: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another authority, a client without a certificate, no keys at all, plain words to a server that wants TLS."""
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    other = directory / "other"
    await asyncio.to_thread(certificates.make, other)
    async with EngineProxy(engine, tls=certificates.server_context(keys)) as proxy:
        monkeypatch.setenv("DOCKER_CERT_PATH", str(other))
        assert "certificate verify failed" in await refusal_of(proxy.docker_host)

        shutil.copy(keys / "ca.pem", other / "ca.pem")  # now the server is believed, but does not believe
        assert "cannot be reached" in await refusal_of(proxy.docker_host)

        monkeypatch.setenv("DOCKER_CERT_PATH", str(directory / "nowhere"))
        words = await refusal_of(proxy.docker_host)
        assert f"{directory}/nowhere/ca.pem" in words
        assert "DOCKER_CERT_PATH" in words

        monkeypatch.delenv("DOCKER_TLS_VERIFY")
        assert "cannot be reached" in await refusal_of(proxy.docker_host)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("ca.pem", "ca.pem holds no certificates in PEM"),
        ("cert.pem", "key.pem is not, in PEM and without a passphrase, the key of .*/cert.pem"),
        ("key.pem", "key.pem is not, in PEM and without a passphrase, the key of .*/cert.pem"),
    ],
)
async def test_files_of_tls_that_make_no_sense(
    keys: Path, monkeypatch: pytest.MonkeyPatch, broken: str, words: str
) -> None:
    """Nobody is asked for a passphrase, which a service would wait for at its start, or in the midst of its calls."""
    (keys / broken).write_bytes(_locked(keys / broken) if broken == "key.pem" else b"")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(keys))
    assert re.search(words, await refusal_of("tcp://127.0.0.1:1"))


def _locked(key: Path) -> bytes:
    """Returns a private key with a passphrase."""
    private = load_pem_private_key(key.read_bytes(), None)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
