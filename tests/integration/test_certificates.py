"""TLS as it is on the wire: who is let in by a certificate, as whom, and what happens when files are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentic_isolation import (
    AgenticWorkspace,
    Credentials,
    InvalidArgumentError,
    NotAllowedError,
    UnauthenticatedError,
    UnavailableError,
)
from agentic_isolation.service import ServiceClient
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.caller import Caller
from agentic_isolation_service.identities import certificates_of
from agentic_isolation_service.rpc.authentication.layer import administrator
from agentic_isolation_service.settings.file import FileSettings
from agentic_isolation_service.settings.tls import TlsSettings
from tests.integration.identified import Identified, identified
from tests.support.certificates import Authority, Pair
from tests.support.eventually import eventually
from tests.support.faulty_path import FaultyPath
from tests.support.service import ServedProcess

SPIFFE = "spiffe://example.org/ns/agents/sa/builder"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="install openssl: it makes the certificates")


@dataclass(frozen=True, slots=True)
class Keys:
    """All that the tests of this module need, made once."""

    ours: Authority
    other: Authority
    builder: Pair
    revoked: Pair
    stranger: Pair


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    directory = tmp_path_factory.mktemp("keys")
    ours, other = Authority.make(directory / "ours"), Authority.make(directory / "other")
    return Keys(
        ours,
        other,
        builder=ours.issue("builder", names=f"URI:{SPIFFE},DNS:builder.example.org"),
        revoked=ours.issue("revoked", subject="/O=Acme/CN=revoked"),
        stranger=other.issue("stranger", names=f"URI:{SPIFFE}"),
    )


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a running service."""

    directory: Path

    def put(self, pair: Pair) -> None:
        shutil.copy(pair.certificate, self.directory / "server.pem")
        shutil.copy(pair.key, self.directory / "server.key")

    @property
    def settings(self) -> TlsSettings:
        return TlsSettings(
            certificate=self.directory / "server.pem",
            key=self.directory / "server.key",
            client_ca=self.directory / "clients.pem",
            revoked=self.directory / "clients.crl",
        )


def server_pair(authority: Authority, name: str) -> Pair:
    return authority.issue(name, subject=f"/CN={name}", names="IP:127.0.0.1", purpose="serverAuth")


@pytest.fixture
async def files(keys: Keys, directory: Path) -> Files:
    files = Files(directory)

    def fill() -> None:
        files.put(server_pair(keys.ours, "first"))
        shutil.copy(keys.ours.certificate, directory / "clients.pem")
        (directory / "clients.crl").write_bytes(keys.ours.revoke())

    await asyncio.to_thread(fill)
    return files


def resolve(identity: str) -> Caller:
    if "unwelcome" in identity:
        raise NotAllowedError("it is nobody's here")
    return administrator(identity)


@pytest.fixture
async def secured(files: Files) -> AsyncIterator[Identified]:
    config = ServiceConfig(address="127.0.0.1:0", file=FileSettings(tls=files.settings))
    async with identified(config, resolve) as service:
        yield service


def shown_by(pair: Pair | None, ca: Path, name: str | None = None) -> Credentials:
    return Credentials(
        ca_file=ca,
        certificate_file=None if pair is None else pair.certificate,
        key_file=None if pair is None else pair.key,
        server_name=name,
    )


async def asked(secured: Identified, credentials: Credentials) -> None:
    async with ServiceClient(secured.target, credentials=credentials, retry_timeout=0) as client:
        assert (await client.info()).version


async def server_name(secured: Identified, keys: Keys) -> str:
    """Returns the common name in the certificate that a new connection is shown."""
    host, _, port = secured.target.rpartition(":")

    def look() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(keys.ours.certificate))
        context.load_cert_chain(keys.builder.certificate, keys.builder.key)
        context.set_alpn_protocols(["h2"])
        return context

    _, writer = await asyncio.open_connection(host, int(port), ssl=await asyncio.to_thread(look))
    try:
        shown = writer.get_extra_info("peercert")["subject"]
        return dict(pair for part in shown for pair in part)["commonName"]  # type: ignore[no-any-return]
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


async def test_spiffe_id_is_the_identity(secured: Identified, keys: Keys) -> None:
    await asked(secured, shown_by(keys.builder, keys.ours.certificate))
    assert secured.callers == [Caller(identity=SPIFFE, tenant="", admin=True)]


@pytest.mark.parametrize(
    ("subject", "names", "identity"),
    [
        ("/O=Acme/CN=builder", "DNS:a.example.org", "certificate:CN=builder,O=Acme"),
        ("/", "DNS:a.example.org", "certificate:dns=a.example.org"),
        ("/CN=a", "URI:https://a.example.org", "certificate:CN=a"),
        ("/CN=spiffe:\\/\\/example.org\\/a", "", "certificate:CN=spiffe://example.org/a"),
    ],
)
async def test_other_certificates_have_an_identity_by_name(
    secured: Identified, keys: Keys, subject: str, names: str, identity: str
) -> None:
    pair = await asyncio.to_thread(lambda: keys.ours.issue("named", subject=subject, names=names))
    await asked(secured, shown_by(pair, keys.ours.certificate))
    assert secured.identities == {identity}


@pytest.mark.parametrize(
    ("subject", "names", "words"),
    [
        ("/CN=a", f"URI:{SPIFFE},URI:spiffe://example.org/b", "has to have one"),
        ("/", "DNS:a.example.org,DNS:b.example.org", "2 DNS names"),
    ],
)
async def test_certificate_that_names_more_than_one_is_refused(
    secured: Identified, keys: Keys, subject: str, names: str, words: str
) -> None:
    pair = await asyncio.to_thread(lambda: keys.ours.issue("several", subject=subject, names=names))
    with pytest.raises(UnauthenticatedError, match=words):
        await asked(secured, shown_by(pair, keys.ours.certificate))
    assert not secured.callers


async def test_whoever_has_no_certificate_of_ours_does_not_come_in(secured: Identified, keys: Keys) -> None:
    for pair in (None, keys.stranger):
        with pytest.raises(UnavailableError, match="client_ca, it wants a certificate"):
            await asked(secured, shown_by(pair, keys.ours.certificate))
    with pytest.raises(UnavailableError, match="has TLS, give ca_file"):  # plaintext
        await asked(secured, Credentials())
    assert not secured.callers


async def test_service_without_tls_is_said_to_be_one(service: ServedProcess, keys: Keys) -> None:
    async with FaultyPath(service.target) as path:
        with pytest.raises(UnavailableError, match="does not seem to have TLS"):
            async with ServiceClient(
                path.target, credentials=shown_by(None, keys.ours.certificate), retry_timeout=0
            ) as client:
                await client.info()


async def test_client_takes_no_service_of_another_authority_or_name(secured: Identified, keys: Keys) -> None:
    with pytest.raises(UnavailableError, match=r"(?i)certificate"):
        await asked(secured, shown_by(keys.builder, keys.other.certificate))
    with pytest.raises(UnavailableError, match=r"(?i)hostname|peer name"):
        await asked(secured, shown_by(keys.builder, keys.ours.certificate, "another.example.org"))
    assert not secured.callers


async def test_identity_that_is_nobodys_here_is_told_so(secured: Identified, keys: Keys) -> None:
    pair = await asyncio.to_thread(lambda: keys.ours.issue("unwelcome", subject="/CN=unwelcome"))
    with pytest.raises(NotAllowedError, match="nobody"):
        await asked(secured, shown_by(pair, keys.ours.certificate))


async def test_token_beside_a_good_certificate_has_to_be_right(secured: Identified, keys: Keys) -> None:
    wrong = Credentials(
        token="wrong",
        ca_file=keys.ours.certificate,
        certificate_file=keys.builder.certificate,
        key_file=keys.builder.key,
    )
    with pytest.raises(UnauthenticatedError, match="does not know this token"):
        await asked(secured, wrong)
    assert not secured.callers


async def test_revoked_certificate_is_refused_on_the_connection_that_it_has(
    secured: Identified, keys: Keys, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    credentials = shown_by(keys.revoked, keys.ours.certificate)
    async with ServiceClient(secured.target, credentials=credentials, retry_timeout=0) as client:
        await client.info()
        crl = await asyncio.to_thread(lambda: keys.ours.revoke(keys.revoked))
        (files.directory / "new.crl").write_bytes(crl)
        (files.directory / "new.crl").rename(files.directory / "clients.crl")

        async def refused() -> bool:
            try:
                await client.info()
            except UnauthenticatedError as error:
                return "revoked" in error.message
            return False

        await eventually(refused, "the certificate is refused")
        # A broken list is no list, and changes nothing.
        (files.directory / "clients.crl").write_text("-----BEGIN X509 CRL-----\n")

        async def is_noticed() -> bool:
            assert await refused()
            return "stays as it was" in caplog.text

        await eventually(is_noticed, "the service has looked at the broken list")
    await asked(secured, shown_by(keys.builder, keys.ours.certificate))


async def test_certificates_are_rotated_while_streams_go_on(
    secured: Identified, keys: Keys, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    credentials = shown_by(keys.builder, keys.ours.certificate)
    async with AgenticWorkspace.create(provider="local", target=secured.target, credentials=credentials) as workspace:
        process = await workspace.start("while read line; do echo got $line; done")
        async with process:
            await process.write("1\n")
            output = process.lines()
            assert await anext(output) == "got 1"
            second = await asyncio.to_thread(server_pair, keys.ours, "second")
            # The new certificate with the old key, as in the midst of a rotation.
            shutil.copy(second.certificate, files.directory / "server.pem")

            async def is_noticed() -> bool:
                assert await server_name(secured, keys) == "first"
                return "stays as it was" in caplog.text

            await eventually(is_noticed, "the service has looked at the broken pair")
            shutil.copy(second.key, files.directory / "server.key")

            async def is_new() -> bool:
                return await server_name(secured, keys) == "second"

            await eventually(is_new, "new connections get the new certificate")
            await process.write("2\n")
            assert await anext(output) == "got 2"
        await asked(secured, credentials)
        assert "PRIVATE KEY" not in caplog.text


@pytest.mark.parametrize("name", ["server.pem", "clients.pem"])
async def test_file_whose_last_certificate_is_cut_off_changes_nothing(
    secured: Identified, keys: Keys, files: Files, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It is being written, or its disk is full: whoever is let in by the part that is missing would be shut out."""
    first, last = keys.other.certificate, keys.ours.certificate
    if name == "server.pem":
        second = await asyncio.to_thread(server_pair, keys.ours, "second")
        first = second.certificate
        shutil.copy(second.key, files.directory / "server.key")
    (files.directory / name).write_bytes(first.read_bytes() + last.read_bytes()[:300])

    async def is_noticed() -> bool:
        await asked(secured, shown_by(keys.builder, keys.ours.certificate))
        return f"tls.{'certificate' if name == 'server.pem' else 'client_ca'}: it is not whole" in caplog.text

    await eventually(is_noticed, "the service has looked at it")
    assert await server_name(secured, keys) == "first"


@pytest.mark.parametrize("broken", ["server.pem", "server.key"])
async def test_key_of_a_kind_that_is_not_known_changes_nothing(
    secured: Identified, keys: Keys, files: Files, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    curve = await asyncio.to_thread(keys.ours.issue, "curve", curve="sect163k1")
    source = curve.certificate if broken.endswith("pem") else curve.key
    shutil.copy(source, files.directory / broken)

    async def is_noticed() -> bool:
        await asked(secured, shown_by(keys.builder, keys.ours.certificate))
        return "stays as it was" in caplog.text

    await eventually(is_noticed, "the service has looked at it")
    assert f"tls.{'certificate' if broken.endswith('pem') else 'key'}: its key is of a kind that is not" in caplog.text
    with pytest.raises(InvalidArgumentError, match="is not supported"):
        await asyncio.to_thread(certificates_of, ServiceConfig(file=FileSettings(tls=files.settings)))


@pytest.mark.parametrize("curve", ["ed25519", "secp521r1"])
async def test_key_of_a_kind_that_clients_do_not_take_is_refused(keys: Keys, files: Files, curve: str) -> None:
    """They would be told nothing but that the connection was closed."""
    pair = await asyncio.to_thread(keys.ours.issue, curve, names="IP:127.0.0.1", purpose="serverAuth", curve=curve)
    files.put(pair)
    with pytest.raises(InvalidArgumentError, match=r"tls\.certificate: .* RSA, P-256 and P-384"):
        await asyncio.to_thread(certificates_of, ServiceConfig(file=FileSettings(tls=files.settings)))


async def test_certificate_of_p_384_is_taken(secured: Identified, keys: Keys, files: Files) -> None:
    longer = await asyncio.to_thread(
        keys.ours.issue, "longer", subject="/CN=longer", names="IP:127.0.0.1", purpose="serverAuth", curve="secp384r1"
    )
    files.put(longer)

    async def is_new() -> bool:
        return await server_name(secured, keys) == "longer"

    await eventually(is_new, "new connections get the new certificate")
    await asked(secured, shown_by(keys.builder, keys.ours.certificate))


async def test_clients_authority_is_rotated(secured: Identified, keys: Keys, files: Files) -> None:
    both = keys.ours.certificate.read_bytes() + keys.other.certificate.read_bytes()
    (files.directory / "clients.pem").write_bytes(both)
    credentials = shown_by(keys.stranger, keys.ours.certificate)

    async def is_let_in() -> bool:
        with contextlib.suppress(UnavailableError):
            await asked(secured, credentials)
            return True
        return False

    await eventually(is_let_in, "the other authority's clients are let in")
    assert secured.identities == {SPIFFE}


async def test_client_takes_its_own_new_certificate(secured: Identified, keys: Keys, directory: Path) -> None:
    mine = Pair(directory / "client.pem", directory / "client.key")

    def put(pair: Pair) -> None:
        shutil.copy(pair.certificate, mine.certificate)
        shutil.copy(pair.key, mine.key)

    await asyncio.to_thread(put, keys.builder)
    credentials = shown_by(mine, keys.ours.certificate)
    async with ServiceClient(secured.target, credentials=credentials, retry_timeout=0) as client:
        await client.info()
        await asyncio.to_thread(lambda: put(keys.ours.issue("renewed", subject="/CN=renewed")))

        async def is_new() -> bool:
            await client.info()
            return "certificate:CN=renewed" in secured.identities

        await eventually(is_new, "the client shows its new certificate")
