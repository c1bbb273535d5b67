"""The public keys of an issuer of tokens (RFC 7517), which may be changed meanwhile."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jwt

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.rpc.reloading import Reloaded

Keys = Mapping[tuple[str | None, str], jwt.PyJWK]
"""Keys by their id, None for one without, and the algorithm that they are for. A new object after each change."""
_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
"""The `kty` of the keys for an algorithm, by its first letters."""
_MAX_KEYS = 1000


class KeySet(Protocol):
    """Where an issuer's keys come from."""

    async def keys(self, *, renewed: bool = False) -> Keys:
        """Returns the keys.

        Args:
            renewed: Look for newer ones first, as far as there was none lately.

        Raises:
            UnavailableError: There are none yet, and they cannot be had at present.
        """


class FileKeys:
    """Keys in a file. Reads it.

    Raises:
        OSError: It cannot be read.
        InvalidArgumentError: It is no key set.
    """

    def __init__(self, file: Path, algorithms: Sequence[str]) -> None:
        self._reloaded = Reloaded("the issuer's key set", [file], lambda: parse_keys(file.read_bytes(), algorithms))

    async def keys(self, *, renewed: bool = False) -> Keys:
        """Returns the keys in the file."""
        return await self._reloaded.current(at_once=renewed)


def parse_keys(data: bytes, algorithms: Sequence[str]) -> Keys:
    """Returns the keys in a key set that are for one of these algorithms. Others are passed over, symmetric ones too.

    Raises:
        InvalidArgumentError: It is no key set, or has none of these.
    """
    try:
        content = json.loads(data)
        entries = content["keys"]
        if not isinstance(entries, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidArgumentError("it is no JSON Web Key Set: an object with 'keys'", field="jwt.jwks") from None
    keys: dict[tuple[str | None, str], jwt.PyJWK] = {}
    for entry in entries[:_MAX_KEYS]:
        if isinstance(entry, dict) and entry.get("use", "sig") == "sig":
            keys.update({(entry.get("kid"), name): key for name, key in _usable(entry, algorithms)})
    if not keys:
        raise InvalidArgumentError(f"it has no key for {', '.join(algorithms)}", field="jwt.jwks")
    return keys


def _usable(entry: dict[str, Any], algorithms: Sequence[str]) -> list[tuple[str, jwt.PyJWK]]:
    """Returns an entry's key for each algorithm that it is for."""
    if not isinstance(entry.get("kid"), str | None):
        return []
    found = []
    for name in algorithms:
        if entry.get("kty") == _KINDS[name[:2]] and entry.get("alg", name) == name:
            try:
                key = jwt.PyJWK(entry, algorithm=name)
                if key.Algorithm.check_key_length(key.key):
                    continue  # as short as nobody should trust any more
            except (jwt.PyJWTError, ValueError, TypeError, KeyError):
                continue
            if name[:2] != "ES" or _CURVES[name] == entry.get("crv"):
                found.append((name, key))
    return found


_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
