"""JSON Web Tokens (RFC 7519), signed by an issuer whose public keys are known."""

from __future__ import annotations

import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import jwt

from agentic_isolation.errors import UnauthenticatedError
from agentic_isolation_service.rpc.authentication.key_sets import Keys, KeySet

_REMEMBERED = 4096
"""Tokens."""
_CLAIMS = ["exp", "iss", "aud", "sub"]
_WORDS = "the token {}; ask its issuer for another one"


class _OtherKeyError(UnauthenticatedError):
    """A token is signed with another key than the one that it names."""


class WebTokens:
    """Knows tokens by the signature of their issuer; the identity of one is "jwt:ISSUER#SUBJECT".

    Args:
        keys: The issuer's keys.
        issuer: Its name.
        audience: What tokens for this service have as their audience.
        algorithms: Those that tokens may be signed with.
        leeway: Seconds by which the issuer's clock may differ from ours.
    """

    def __init__(self, keys: KeySet, *, issuer: str, audience: str, algorithms: Sequence[str], leeway: float) -> None:
        self._keys = keys
        self._issuer, self._audience = issuer, audience
        self._algorithms = list(algorithms)
        self._leeway = leeway
        self._decoder = jwt.PyJWT(options={"require": _CLAIMS, "enforce_minimum_key_length": True})
        self._known: OrderedDict[bytes, tuple[str, int, Keys]] = OrderedDict()

    async def identity_of(self, token: str) -> str:
        """Returns the identity that a token proves.

        Raises:
            UnauthenticatedError: It proves nothing; the error says why.
            UnavailableError: The issuer's keys cannot be had at present.
        """
        keys = await self._keys.keys()
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(digest)
        if known is not None:
            identity, end, by = known
            # What was signed by keys that were changed since is looked at again.
            if by is keys and time.time() - self._leeway < end:
                self._known.move_to_end(digest)
                return identity
            del self._known[digest]
        key, keys = await self._key_of(token, keys)
        try:
            claims = self._verified(token, key)
        except _OtherKeyError:
            # Its issuer may have another key since, which is called the same, or has no name at all.
            renewed = await self._keys.keys(renewed=True)
            if renewed is keys:
                raise
            key, keys = await self._key_of(token, renewed)
            claims = self._verified(token, key)
        if not claims["sub"]:
            raise _refused("has an empty 'sub'")
        identity = f"jwt:{self._issuer}#{claims['sub']}"
        self._known[digest] = (identity, int(claims["exp"]), keys)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return identity

    async def _key_of(self, token: str, keys: Keys) -> tuple[jwt.PyJWK, Keys]:
        """Returns the key that a token says it is signed with, and the keys that it is among."""
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise _refused("is no JSON Web Token") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._algorithms:
            raise _refused(f"is not signed with one of {', '.join(self._algorithms)}")
        key = _found(keys, kid, algorithm)
        if key is None:
            keys = await self._keys.keys(renewed=True)
            key = _found(keys, kid, algorithm)
        if key is None:
            raise _refused("is signed with a key that is not, or no longer, among its issuer's")
        return key, keys

    def _verified(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        try:
            return self._decoder.decode(
                token,
                key,
                algorithms=self._algorithms,
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway,
            )
        except jwt.ExpiredSignatureError:
            raise _refused("has expired") from None
        except (jwt.ImmatureSignatureError, jwt.InvalidIssuedAtError):
            raise _refused("is not valid yet") from None
        except jwt.InvalidAudienceError:
            raise _refused(f"is for another audience than {self._audience!r}") from None
        except jwt.InvalidIssuerError:
            raise _refused(f"is of another issuer than {self._issuer!r}") from None
        except jwt.MissingRequiredClaimError as error:
            raise _refused(f"has no {error.claim!r}") from None
        except jwt.InvalidSignatureError:
            raise _OtherKeyError(_WORDS.format("has a signature that is not its issuer's")) from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, binascii.Error):
            raise _refused("is malformed") from None


def _found(keys: Keys, kid: object, algorithm: str) -> jwt.PyJWK | None:
    """Returns the key that a token names; one that names none is signed with the only key for its algorithm."""
    if isinstance(kid, str):
        return keys.get((kid, algorithm))
    fitting = [key for (_, name), key in keys.items() if name == algorithm]
    return fitting[0] if kid is None and len(fitting) == 1 else None


def _refused(why: str) -> UnauthenticatedError:
    return UnauthenticatedError(_WORDS.format(why))
