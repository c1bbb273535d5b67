"""Revocation lists that nobody has renewed: they are used, and whoever runs the service is told."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.rpc.authentication.certificates import PeerCertificates, revocation_lists
from agentic_isolation_service.rpc.authentication.proof import Proof
from agentic_isolation_service.rpc.reloading import Reloaded
from tests.support.eventually import eventually

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "acme")])
DAY = dt.timedelta(days=1)
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate() -> bytes:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(NAME, NAME, KEY.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


def crl(until: dt.datetime) -> bytes:
    builder = x509.CertificateRevocationListBuilder(NAME, until - DAY, until)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "clients.crl"


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [record.message for record in caplog.records if "was to be renewed by" in record.message]


class Context:
    """Of a call over TLS."""

    def __init__(self, shown: bytes) -> None:
        self._shown = shown

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._shown]}


def peers(file: Path) -> PeerCertificates:
    return PeerCertificates(Reloaded("the revocation list", [file], partial(revocation_lists, file)))


def test_list_that_is_out_of_date_at_the_start(file: Path, warnings: Callable[[], list[str]]) -> None:
    file.write_bytes(crl(dt.datetime.now(dt.UTC) - DAY))
    peers(file)
    [told] = warnings()
    assert "CN=acme" in told


async def test_list_that_goes_out_of_date_meanwhile(file: Path, warnings: Callable[[], list[str]]) -> None:
    """It is told once, and again of the next list that is."""
    now = dt.datetime.now(dt.UTC)
    await asyncio.to_thread(file.write_bytes, crl(now + dt.timedelta(seconds=2)) + crl(now + DAY))
    authenticator = await asyncio.to_thread(peers, file)
    proof = Proof(cast("Any", Context(certificate())))

    async def told(times: int) -> bool:
        assert await authenticator.identify(proof) == "certificate:CN=acme"
        return len(warnings()) == times

    assert await told(0)
    await eventually(lambda: told(1), "it is told")
    assert await told(1)
    await asyncio.to_thread(file.write_bytes, crl(now - DAY))
    await eventually(lambda: told(2), "the next one is told")


def test_list_that_is_cut_off_is_refused(file: Path) -> None:
    """Whom it revokes would be let in again, with the other lists of the file."""
    now = dt.datetime.now(dt.UTC)
    file.write_bytes(crl(now + DAY) + crl(now + DAY)[:-30])
    with pytest.raises(InvalidArgumentError, match=r"tls\.revoked: it is not whole"):
        revocation_lists(file)
