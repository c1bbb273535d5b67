"""The server's side of TLS: certificates that may be replaced while it runs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.rpc.pem import check_whole
from agentic_isolation_service.rpc.reloading import Reloaded


class ServerCertificates:
    """A server's certificate and its clients' authorities. Each new connection gets those that lie in the files then.

    Reads the files.

    Args:
        certificate: The server's certificate, and after it those of intermediate authorities, in PEM.
        key: Its private key, in PEM.
        client_ca: Authorities of clients, each of which has to show a certificate; None: they show none.

    Raises:
        OSError: A file cannot be read.
        InvalidArgumentError: They make no sense; the error names the setting, as `tls.key`.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        files = [file for file in (certificate, key, client_ca) if file is not None]
        self._configurations = Reloaded("the server's certificate", files, self._configuration)
        self._lock = threading.Lock()
        self._given: grpc.ServerCertificateConfiguration | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Returns them for a port of a gRPC server."""
        self._given = self._configurations.latest
        # The stubs do not know that it may say that nothing has changed.
        renewed: Any = self._renewed
        return grpc.dynamic_ssl_server_credentials(
            self._given, renewed, require_client_authentication=self._client_ca is not None
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked by gRPC, in a thread of its own, for every connection; None: nothing has changed."""
        configuration = self._configurations.look()
        with self._lock:
            if configuration is self._given:
                return None
            self._given = configuration
        return configuration

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        chain, key = self._certificate.read_bytes(), self._key.read_bytes()
        authorities = None if self._client_ca is None else self._client_ca.read_bytes()
        # gRPC would take anything, and refuse every connection afterwards.
        certificate = _certificates(chain, "tls.certificate")[0]
        try:
            certified = certificate.public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _unsupported("tls.certificate", error) from error
        if not _is_taken(certified):
            raise _unsupported("tls.certificate", "clients in Python or C++ take none but RSA, P-256 and P-384")
        try:
            private = load_pem_private_key(key, None)
        except (ValueError, TypeError) as error:
            raise InvalidArgumentError(
                "it is no private key in PEM, or has a passphrase, which nobody could enter", field="tls.key"
            ) from error
        except UnsupportedAlgorithm as error:
            raise _unsupported("tls.key", error) from error
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if private.public_key().public_bytes(*form) != certified.public_bytes(*form):
            raise InvalidArgumentError("it is another certificate's key than that of tls.certificate", field="tls.key")
        if authorities is not None:
            _certificates(authorities, "tls.client_ca")
        return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=authorities)


def _is_taken(key: object) -> bool:
    """Returns whether gRPC's own clients take a certificate with such a key; else they would not say why."""
    if isinstance(key, EllipticCurvePublicKey):
        return isinstance(key.curve, SECP256R1 | SECP384R1)
    return isinstance(key, RSAPublicKey)


def _unsupported(field: str, why: object) -> InvalidArgumentError:
    return InvalidArgumentError(f"its key is of a kind that is not supported ({why}); make one of P-256", field=field)


def _certificates(data: bytes, field: str) -> list[x509.Certificate]:
    check_whole(data, field)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise InvalidArgumentError("it holds no certificates in PEM", field=field) from error
