"""Certificates for one test, made with openssl: authorities, servers of this machine, clients."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_CURVE = "prime256v1"
_CA_CONFIG = """
[ca]
default_ca = here
[here]
database = index.txt
default_md = sha256
default_crl_days = 2
"""


def make(directory: Path) -> None:
    """Puts ca.pem, cert.pem and key.pem into a directory, as DOCKER_CERT_PATH has them, and server.pem beside them."""
    authority = Authority.make(directory)
    authority.issue("server", subject="/CN=127.0.0.1", names="IP:127.0.0.1", purpose="serverAuth")
    authority.issue("cert", subject="/CN=client", names="IP:127.0.0.1")
    (directory / "cert.key").rename(directory / "key.pem")


def server_context(directory: Path) -> ssl.SSLContext:
    """For a server that lets in only the clients of its own authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(directory / "ca.pem"))
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority whose certificate is ca.pem in its directory, where all that it issues is put, too."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Authority:
        directory.mkdir()
        _openssl(directory, "req", "-x509", *_new_key("ca"), "-subj", "/CN=authority", "-out", "ca.pem")
        (directory / "ca.cnf").write_text(_CA_CONFIG)
        (directory / "index.txt").touch()
        return cls(directory)

    @property
    def certificate(self) -> Path:
        return self.directory / "ca.pem"

    def issue(
        self, name: str, *, subject: str = "/", names: str = "", purpose: str = "clientAuth", curve: str = _CURVE
    ) -> Pair:
        """Makes NAME.pem and NAME.key.

        Args:
            name: Of the files.
            subject: As openssl spells it.
            names: Alternative ones as openssl spells them, "DNS:a,URI:b".
            purpose: Of the key.
            curve: Of the key: ed25519, or one for ECDSA.
        """
        extensions = self.directory / f"{name}.ext"
        lines = [f"extendedKeyUsage={purpose}", *([f"subjectAltName={names}"] if names else [])]
        extensions.write_text("\n".join(lines))
        _openssl(self.directory, "req", *_new_key(name, curve), "-subj", subject, "-out", f"{name}.csr")
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", extensions.name)
        _openssl(self.directory, "x509", "-req", "-in", f"{name}.csr", *signer, "-out", f"{name}.pem")
        return Pair(self.directory / f"{name}.pem", self.directory / f"{name}.key")

    def revoke(self, *pairs: Pair) -> bytes:
        """Returns the revocation list, in PEM, with all that were revoked so far."""
        with_key = ("-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.pem")
        for pair in pairs:
            _openssl(self.directory, "ca", *with_key, "-revoke", pair.certificate.name)
        _openssl(self.directory, "ca", *with_key, "-gencrl", "-out", "ca.crl")
        return (self.directory / "ca.crl").read_bytes()


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


def _new_key(name: str, curve: str = _CURVE) -> list[str]:
    kind = [curve] if curve == "ed25519" else ["ec", "-pkeyopt", f"ec_paramgen_curve:{curve}"]
    return ["-newkey", *kind, "-nodes", "-keyout", f"{name}.key"]


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=30)
