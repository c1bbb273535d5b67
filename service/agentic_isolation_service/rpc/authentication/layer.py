"""The layer that finds out who calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import grpc.aio

from agentic_isolation.errors import UnauthenticatedError
from agentic_isolation_service.core.caller import NOBODY, Caller
from agentic_isolation_service.rpc.authentication.proof import Authenticator, Proof
from agentic_isolation_service.rpc.calls import Call


def administrator(identity: str) -> Caller:
    """Returns the caller that an identity is where there are no tenants: everyone has all workspaces."""
    return Caller(identity=identity, tenant="", admin=True)


class Authentication:
    """Sets the caller of each call, and refuses those that prove nothing.

    Args:
        authenticators: What proves an identity. All of them look at each call, so that nothing that is wrong with it is
            passed over; the first identity counts.
        resolve: Returns the caller that an identity is, or raises NotAllowedError where it is nobody's here.
    """

    def __init__(
        self, authenticators: Sequence[Authenticator], resolve: Callable[[str], Caller] = administrator
    ) -> None:
        self._authenticators = tuple(authenticators)
        self._resolve = resolve

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Sets the call's caller. Entered, it raises what `caller_of` does."""
        return _Known(self, call)

    async def caller_of(self, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        """Returns who makes a call.

        Raises:
            UnauthenticatedError: Nothing proves it, or something that was shown is wrong.
            NotAllowedError: They may not use this service.
            UnavailableError: It cannot be found out at present.
        """
        proof = Proof(context)
        found = [await authenticator.identify(proof) for authenticator in self._authenticators]
        identity = next((identity for identity in found if identity is not None), None)
        if identity is None:
            ways = ", or ".join(authenticator.wanted for authenticator in self._authenticators)
            raise UnauthenticatedError(f"nothing proves who calls; {ways}")
        return self._resolve(identity)


class _Known(AbstractAsyncContextManager[None]):
    """Around one call, whose caller is known within. No generator: this is on the way of every call."""

    __slots__ = ("_authentication", "_call")

    def __init__(self, authentication: Authentication, call: Call) -> None:
        self._authentication = authentication
        self._call = call

    async def __aenter__(self) -> None:
        self._call.caller = NOBODY  # so that what is told of a refusal does not tell of the operator
        self._call.caller = await self._authentication.caller_of(self._call.context)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass
