"""Proxies with an identity of their own: calls that come through them need their caller's."""

from __future__ import annotations

from collections.abc import Callable, Collection

from agentic_isolation.errors import UnauthenticatedError
from agentic_isolation_service.core.caller import Caller


def resolving_behind(proxies: Collection[str], resolve: Callable[[str], Caller]) -> Callable[[str], Caller]:
    """Returns what returns the caller that an identity is, and refuses those of proxies, whoever has named them.

    It raises UnauthenticatedError for these: nobody but the proxy has proved who they are.

    Args:
        proxies: The proxies' identities.
        resolve: Returns the caller that any other identity is.
    """
    refused = frozenset(proxies)

    def caller_of(identity: str) -> Caller:
        if identity in refused:
            raise UnauthenticatedError(
                "the call came through a proxy, and shows nothing of its own caller; "
                "send metadata 'authorization: Bearer TOKEN'"
            )
        return resolve(identity)

    return caller_of
