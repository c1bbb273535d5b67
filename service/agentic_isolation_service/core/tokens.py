"""Tokens that the configuration lists by their hashes."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass

from agentic_isolation.errors import UnauthenticatedError


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticToken:
    """A token that the service knows, of which it has only the hash."""

    name: str
    """Whose it is."""
    sha256: str
    """SHA-256 of the token, in 64 lower-case hexadecimal digits."""
    expires: float | None = None
    """Seconds since the epoch from which on it is not taken any more; None: it always is."""


class StaticTokens:
    """Knows tokens by their hashes; the identity of one is "token:NAME".

    Args:
        tokens: Those that are taken.
    """

    def __init__(self, tokens: Sequence[StaticToken]) -> None:
        self._tokens = tuple((bytes.fromhex(token.sha256), token) for token in tokens)

    def identity_of(self, token: str) -> str | None:
        """Returns the identity of a token; None: it is none of these.

        Raises:
            UnauthenticatedError: It has expired.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found = None
        # All are compared, each in constant time: how long it takes tells nothing of which are close.
        for known, candidate in self._tokens:
            if hmac.compare_digest(known, digest):
                found = candidate
        if found is None:
            return None
        if found.expires is not None and time.time() >= found.expires:
            raise UnauthenticatedError(f"the token {found.name!r} has expired; ask for a new one")
        return f"token:{found.name}"
