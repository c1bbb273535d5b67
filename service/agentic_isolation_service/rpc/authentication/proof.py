"""What is shown with a call, and who can make an identity of it."""

from __future__ import annotations

from typing import Any, Protocol

import grpc.aio

from agentic_isolation.errors import UnauthenticatedError
from agentic_isolation_service.rpc.socket_users import SocketUser, user_of

_SCHEME = "bearer"
_CERTIFICATE = "x509_pem_cert"


class Proof:
    """What is shown with one call.

    Args:
        context: The call's.

    Raises:
        UnauthenticatedError: Its `authorization` is none that we understand.
    """

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._context = context
        self.token = _token_of(context)
        """What stands behind "Bearer" in its metadata; None: there is no `authorization`."""

    @property
    def over_unix_socket(self) -> bool:
        """Whether it has come over a unix socket, of whichever user."""
        return self._context.peer().startswith("unix:")

    @property
    def socket_user(self) -> SocketUser | None:
        """Who has connected to the unix socket; None: that was not asked, or the call has not come over it."""
        return user_of(self._context.peer())

    @property
    def certificate(self) -> bytes | None:
        """The peer's certificate in PEM, which TLS has verified; None: it has shown none."""
        context = self._context.auth_context()
        return next(iter(context.get(_CERTIFICATE, ())), None)


class Authenticator(Protocol):
    """Makes an identity of one kind of proof."""

    wanted: str
    """What a caller has to do to be known by it, for example "send a token"."""

    async def identify(self, proof: Proof) -> str | None:
        """Returns the identity that is proved; None: its kind of proof was not shown.

        Raises:
            UnauthenticatedError: It was shown, and proves nothing. The error never contains it.
            UnavailableError: What it needs for checking cannot be had at present.
        """


def _token_of(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    values = [str(value) for key, value in context.invocation_metadata() or () if key == "authorization"]
    if not values:
        return None
    if len(values) > 1:
        raise UnauthenticatedError("there is more than one 'authorization' in the metadata; send one")
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != _SCHEME or not token.strip():
        raise UnauthenticatedError("the metadata's 'authorization' is not of the form 'Bearer TOKEN'")
    return token.strip()
