"""Identities of client certificates, which TLS has verified: by SPIFFE id, else by name."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from agentic_isolation.errors import InvalidArgumentError, UnauthenticatedError
from agentic_isolation_service.rpc.authentication.proof import Proof
from agentic_isolation_service.rpc.pem import check_whole
from agentic_isolation_service.rpc.reloading import Reloaded

_SPIFFE = "spiffe://"
_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_REMEMBERED = 4096
"""Certificates."""
_log = logging.getLogger(__name__)


class PeerCertificates:
    """Makes an identity of the certificate that a client has shown, and refuses one that was revoked.

    Args:
        revoked: Asked for the revocation lists; None: there are none.
    """

    wanted = "connect with a client certificate"

    def __init__(self, revoked: Reloaded[Sequence[x509.CertificateRevocationList]] | None = None) -> None:
        self._revoked = revoked
        self._lists: Sequence[x509.CertificateRevocationList] = ()
        self._ends: list[tuple[datetime, str]] = []
        """Until when each of the lists is up to date, and whose it is, the next one last; without those told of."""
        if revoked is not None:
            self._tell_outdated(revoked.latest)

    async def identify(self, proof: Proof) -> str | None:
        """Returns the identity of the peer's certificate. Raises what an Authenticator does."""
        pem = proof.certificate
        if pem is None:
            return None
        certificate, identity = _known(pem)
        if self._revoked is not None:
            # Asked for each call, so that a connection does not outlive its certificate's revocation.
            lists = await self._revoked.current()
            self._tell_outdated(lists)
            if _is_revoked(certificate, lists):
                raise UnauthenticatedError("the client certificate was revoked by its issuer; connect with a new one")
        return identity

    def _tell_outdated(self, lists: Sequence[x509.CertificateRevocationList]) -> None:
        """Logs of each list, once, that it is out of date: it is used all the same."""
        if lists is not self._lists:
            self._lists = lists
            ends = [(one.next_update_utc, one.issuer.rfc4514_string()) for one in lists]
            self._ends = sorted(((end, issuer) for end, issuer in ends if end is not None), reverse=True)
        while self._ends and self._ends[-1][0] < datetime.now(UTC):
            end, issuer = self._ends.pop()
            _log.warning("the revocation list of %s was to be renewed by %s", issuer, end)


def identity_of(certificate: x509.Certificate) -> str:
    """Returns the identity that a certificate proves.

    That is its SPIFFE id, as the standard X.509-SVID has it: the only URI among its alternative names. Else
    "certificate:" and its subject (RFC 4514), for example "certificate:CN=builder,O=Acme"; for one without a subject
    "certificate:dns=" and its only DNS name.

    Raises:
        UnauthenticatedError: It names nobody, or more than one.
    """
    names = _alternative_names(certificate)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names else []
    if any(uri.lower().startswith(_SPIFFE) for uri in uris):
        if len(uris) > 1:
            raise UnauthenticatedError("the client certificate has a SPIFFE id and other URIs; it has to have one")
        return uris[0]
    if certificate.subject.rdns:
        return f"certificate:{certificate.subject.rfc4514_string()}"
    hosts = names.get_values_for_type(x509.DNSName) if names else []
    if len(hosts) != 1:
        raise UnauthenticatedError(
            f"the client certificate has no SPIFFE id, no subject and {len(hosts)} DNS names; it has to name one client"
        )
    return f"certificate:dns={hosts[0]}"


def revocation_lists(file: Path) -> Sequence[x509.CertificateRevocationList]:
    """Reads the revocation lists in a file in PEM, also those that are out of date.

    Raises:
        OSError: It cannot be read.
        InvalidArgumentError: It holds none, or not all of one.
    """
    data = file.read_bytes()
    check_whole(data, "tls.revoked")
    try:
        lists = [x509.load_pem_x509_crl(match) for match in _CRL.findall(data)]
    except ValueError as error:
        raise InvalidArgumentError("a revocation list in it is broken", field="tls.revoked") from error
    if not lists:
        raise InvalidArgumentError("it holds no revocation list in PEM", field="tls.revoked")
    return lists


@functools.lru_cache(_REMEMBERED)
def _known(pem: bytes) -> tuple[x509.Certificate, str]:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        return certificate, identity_of(certificate)
    except (ValueError, x509.DuplicateExtension):
        raise UnauthenticatedError("the client certificate cannot be read; connect with another one") from None


def _is_revoked(certificate: x509.Certificate, lists: Sequence[x509.CertificateRevocationList]) -> bool:
    return any(
        one.issuer == certificate.issuer
        and one.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
        for one in lists
    )


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
