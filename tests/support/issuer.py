"""An issuer of JSON Web Tokens, with keys of its own, and a server for its key set."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://issuer.example.org", "agentic-isolation"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def new_key(algorithm: str) -> Key:
    """Returns a new private key for an algorithm."""
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, 2048)


def public_pem(key: Key) -> bytes:
    """Returns the public key in PEM, as anybody may have it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(slots=True)
class Issuer:
    """An issuer."""

    keys: dict[str, tuple[str, Key]] = field(default_factory=dict)
    """Algorithm and key, by the key's id."""

    def add(self, kid: str, algorithm: str) -> None:
        self.keys[kid] = (algorithm, new_key(algorithm))

    def token(self, kid: str, *, header: dict[str, Any] | None = None, without: str = "", **claims: Any) -> str:
        """Returns a token that is right, but for the claims and the header that are given, or left out."""
        algorithm, key = self.keys[kid]
        content = {"iss": ISSUER, "aud": AUDIENCE, "sub": "builder", "exp": time.time() + 300} | claims
        content.pop(without, None)
        headers = {name: value for name, value in ({"kid": kid} | (header or {})).items() if value is not None}
        return jwt.encode(content, key, algorithm, headers=headers)

    def key_set(self, *kids: str) -> str:
        """Returns the key set with the public parts of these keys, or of all."""
        makers: dict[str, Any] = {"EdDSA": OKPAlgorithm, "ES256": ECAlgorithm}
        entries = []
        for kid in kids or self.keys:
            algorithm, key = self.keys[kid]
            entry = makers.get(algorithm, RSAAlgorithm).to_jwk(key.public_key(), as_dict=True)
            entries.append({**entry, "kid": kid, "use": "sig"})
        return json.dumps({"keys": entries})


@dataclass(slots=True)
class KeyServer:
    """An HTTP server on this machine that gives one answer."""

    address: str
    body: str
    status: str = "200 OK"
    headers: str = ""
    asked: int = 0
    """How often it was."""


@contextlib.asynccontextmanager
async def key_server(body: str, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[KeyServer]:
    """Runs a server, over HTTPS with the context that is given."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        served.asked += 1
        head = f"HTTP/1.1 {served.status}\r\nContent-Length: {len(served.body)}\r\nConnection: close\r\n"
        writer.write((head + served.headers + "\r\n" + served.body).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    served = KeyServer(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json", body)
    async with server:
        yield served
