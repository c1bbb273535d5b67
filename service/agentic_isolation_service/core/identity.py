"""Who a service is: what makes its workspaces its own, in every process that it ever runs as."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Identity:
    """A service's name in its engines, and the secret from which all its other secrets come."""

    service_id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raises ValueError where it names nobody, or anybody could guess its secret."""
        if not self.service_id or len(self.secret) != _SECRET_BYTES:
            raise ValueError("an identity has a name, and a secret of 32 bytes")

    @classmethod
    def new(cls) -> Identity:
        """Returns an identity that nobody else has."""
        return cls(secrets.token_hex(16), secrets.token_bytes(_SECRET_BYTES))

    def guest_key(self, workspace_id: str) -> bytes:
        """Returns the secret that the service shares with a workspace's guest, 32 bytes."""
        return self._mac(b"guest-key:" + workspace_id.encode())

    def seal(self, text: str) -> str:
        """Returns a text with the proof that it is ours, for keeping it where others might change it."""
        return f"{self._mac(b'record:' + text.encode()).hex()}:{text}"

    def unseal(self, sealed: str) -> str | None:
        """Returns the text that was sealed, or None where we have never sealed it."""
        proof, _, text = sealed.partition(":")
        expected = self._mac(b"record:" + text.encode("utf-8", "surrogatepass")).hex()
        return text if proof.isascii() and hmac.compare_digest(proof, expected) else None

    def fingerprint(self, values: Mapping[str, str]) -> str:
        """Returns what is equal for equal secrets of a client, and tells nobody else anything; empty for none."""
        if not values:
            return ""
        return self._mac(b"secrets:" + json.dumps(values, sort_keys=True).encode()).hex()

    def _mac(self, message: bytes) -> bytes:
        return hmac.new(self.secret, message, hashlib.sha256).digest()
