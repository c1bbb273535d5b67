"""Certificates for one test, made with openssl: an authority, a server of this machine, a client."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


def make(directory: Path) -> None:
    """Puts ca.pem, cert.pem and key.pem into a directory, as DOCKER_CERT_PATH has them, and server.pem beside them."""
    directory.mkdir()
    _openssl(directory, "req", "-x509", *_new_key("ca"), "-subj", "/CN=authority", "-out", "ca.pem")
    for name, common_name, purpose in (("server", "127.0.0.1", "serverAuth"), ("cert", "client", "clientAuth")):
        extensions = directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={purpose}\n")
        _openssl(directory, "req", *_new_key(name), "-subj", f"/CN={common_name}", "-out", f"{name}.csr")
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", extensions.name)
        _openssl(directory, "x509", "-req", "-in", f"{name}.csr", *signer, "-out", f"{name}.pem")
    (directory / "cert.key").rename(directory / "key.pem")


def server_context(directory: Path) -> ssl.SSLContext:
    """For a server that lets in only the clients of its own authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(directory / "ca.pem"))
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _new_key(name: str) -> list[str]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"]


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=30)
