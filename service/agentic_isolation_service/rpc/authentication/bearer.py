"""Bearer tokens (RFC 6750): `authorization: Bearer TOKEN` in a call's metadata."""

from __future__ import annotations

from typing import Protocol

from agentic_isolation.errors import UnauthenticatedError
from agentic_isolation_service.core.tokens import StaticTokens
from agentic_isolation_service.rpc.authentication.proof import Proof


class SignedTokens(Protocol):
    """Knows tokens by the signature of who has issued them."""

    async def identity_of(self, token: str) -> str:
        """Returns the identity that a token proves.

        Raises:
            UnauthenticatedError: It proves nothing; the error says why.
            UnavailableError: The keys of its issuer cannot be had at present.
        """


class BearerTokens:
    """Makes an identity of a token. One that is wrong is refused, whatever else is shown with the call.

    Args:
        static: Tokens that are known by their hashes.
        signed: Tokens that are known by their signature; None: there are none.
    """

    wanted = "send 'authorization: Bearer TOKEN'"

    def __init__(self, static: StaticTokens, signed: SignedTokens | None = None) -> None:
        self._static = static
        self._signed = signed

    async def identify(self, proof: Proof) -> str | None:
        """Returns the identity of the call's token. Raises what an Authenticator does."""
        if proof.token is None:
            return None
        identity = self._static.identity_of(proof.token)
        if identity is not None:
            return identity
        # A JSON Web Token in its compact form has three parts; ours have no dots.
        if self._signed is not None and proof.token.count(".") == 2:
            return await self._signed.identity_of(proof.token)
        raise UnauthenticatedError("the service does not know this token; it may have been replaced by a new one")
