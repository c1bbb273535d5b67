"""TLS between clients and Envoy, and mutual TLS between Envoy and a replica: the lines of the configuration for it."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from pathlib import Path

import pytest

from agentic_isolation import AgenticWorkspace, Credentials, UnauthenticatedError, UnavailableError
from tests.support.certificates import Authority
from tests.support.envoy import Envoy
from tests.support.eventually import eventually
from tests.support.program import CHECKOUT
from tests.support.replica import free_port
from tests.support.service import ServedProcess

TOKEN = "a-token-of-a-test"
MESH = CHECKOUT / "docs" / "mesh.md"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="install openssl: it makes the certificates")


@pytest.fixture
def ground(forks: None) -> None:
    """It has a mesh of its own."""


def with_tls(text: str) -> str:
    """Returns the configuration with TLS, as its comment says how to have it."""
    return re.sub(r"^#m?tls ", "", text, flags=re.MULTILINE)


def watching(text: str) -> str:
    """Returns the configuration with TLS, as the documentation says how its files are read again."""
    (setting,) = re.findall(r"```yaml\n( +tls_certificate_sds_.*?)```", MESH.read_text(), re.DOTALL)
    read_once = r"            tls_certificates:\n.*tls/edge\.pem.*\n.*tls/edge\.key.*\n"
    changed, times = re.subn(read_once, lambda _: setting, with_tls(text))
    assert times == 1
    return changed


def asking(text: str) -> str:
    """Returns the configuration with TLS, of an Envoy that wants certificates, as that of the composition does."""
    kind = r'^( *)"@type": .*\.DownstreamTlsContext\n'
    changed, times = re.subn(kind, r"\g<0>\1require_client_certificate: true\n", with_tls(text), flags=re.MULTILINE)
    key = r"^( *)  private_key: \{filename: tls/edge\.key\}\n"
    authority = r"\g<0>\1validation_context: {trusted_ca: {filename: tls/ca.pem}}\n"
    changed, more = re.subn(key, authority, changed, flags=re.MULTILINE)
    assert times == more == 1
    return changed


def keys(directory: Path) -> Path:
    """Makes all certificates, and the configuration of a replica that asks Envoy for one, and clients for a token."""
    authority = Authority.make(directory)
    authority.issue("replica", names="DNS:agentic-isolation", purpose="serverAuth")
    authority.issue("envoy", names="URI:spiffe://example.org/envoy")
    authority.issue("edge", names="IP:127.0.0.1", purpose="serverAuth")
    settings = directory / "settings.toml"
    settings.write_text(
        f'[tls]\ncertificate = "{directory}/replica.pem"\nkey = "{directory}/replica.key"\n'
        f'client_ca = "{directory}/ca.pem"\n'
        f'[[token]]\nname = "client"\nsha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"\n'
        '[cluster]\nreplica = "one"\nproxies = ["spiffe://example.org/envoy"]\n'
    )
    return settings


async def test_tls_on_both_sides(directory: Path) -> None:
    envoy_directory = directory / "envoy"
    envoy_directory.mkdir()
    settings = await asyncio.to_thread(keys, envoy_directory / "tls")
    ca, port = str(envoy_directory / "tls" / "ca.pem"), free_port()
    options = ["--config", str(settings), "--address", f"127.0.0.1:{port}", "--log-level", "warning"]
    with (
        await asyncio.to_thread(ServedProcess, *options) as service,
        await asyncio.to_thread(Envoy, envoy_directory, {"one": port}, with_tls) as envoy,
    ):
        shown = Credentials(token=TOKEN, ca_file=ca)
        async with AgenticWorkspace.create(provider="local", target=envoy.target, credentials=shown) as workspace:
            assert workspace.id.startswith("ws-one-")
            assert (await workspace.execute("echo hi")).stdout == "hi\n"
            assert [line async for line in workspace.stream("echo 1; echo 2")] == ["1", "2"]
        for target, credentials, error in (
            (envoy.target, Credentials(ca_file=ca), UnauthenticatedError),  # Envoy's certificate is not its client's
            (envoy.target, Credentials(), UnavailableError),
            (service.target, shown, UnavailableError),
        ):
            with pytest.raises(error):
                await AgenticWorkspace.list(target=target, credentials=credentials, retry_timeout=0)


async def test_client_without_the_certificate_that_envoy_wants_is_told_so(directory: Path) -> None:
    envoy_directory = directory / "envoy"
    envoy_directory.mkdir()
    settings = await asyncio.to_thread(keys, envoy_directory / "tls")
    port = free_port()
    options = ["--config", str(settings), "--address", f"127.0.0.1:{port}", "--log-level", "warning"]
    with (
        await asyncio.to_thread(ServedProcess, *options),
        await asyncio.to_thread(Envoy, envoy_directory, {"one": port}, asking) as envoy,
    ):
        shown = Credentials(token=TOKEN, ca_file=str(envoy_directory / "tls" / "ca.pem"))
        with pytest.raises(UnavailableError, match="wants a certificate"):
            await AgenticWorkspace.list(target=envoy.target, credentials=shown, retry_timeout=0)


async def test_certificate_of_envoy_is_read_again_as_documented(directory: Path) -> None:
    envoy_directory, ours, other = directory / "envoy", directory / "envoy" / "tls", directory / "other"
    envoy_directory.mkdir()
    settings = await asyncio.to_thread(keys, ours)
    (secret,) = re.findall(r"```yaml\n(# tls/edge\.yaml\n.*?)```", MESH.read_text(), re.DOTALL)
    (ours / "edge.yaml").write_text(secret)
    stranger = await asyncio.to_thread(Authority.make, other)
    await asyncio.to_thread(stranger.issue, "edge", names="IP:127.0.0.1", purpose="serverAuth")
    port = free_port()
    options = ["--config", str(settings), "--address", f"127.0.0.1:{port}", "--log-level", "warning"]
    node = ["--service-node", "edge", "--service-cluster", "edge"]
    with (
        await asyncio.to_thread(ServedProcess, *options),
        await asyncio.to_thread(lambda: Envoy(envoy_directory, {"one": port}, watching, more=node)) as envoy,
    ):

        async def listed(authority: Path) -> bool:
            credentials = Credentials(token=TOKEN, ca_file=str(authority / "ca.pem"))
            try:
                return await AgenticWorkspace.list(target=envoy.target, credentials=credentials, retry_timeout=0) == []
            except UnavailableError:
                return False

        assert await listed(ours)
        for name in ("edge.key", "edge.pem"):
            (other / name).rename(ours / name)
        await eventually(lambda: listed(other), "new connections get the new certificate")
        assert not await listed(ours)
