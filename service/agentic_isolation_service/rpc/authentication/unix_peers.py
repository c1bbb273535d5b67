"""Callers over a unix socket, which the kernel has let in by the socket's mode."""

from __future__ import annotations

from collections.abc import Collection

from agentic_isolation.errors import NotAllowedError
from agentic_isolation_service.rpc.authentication.proof import Proof

UNIX_IDENTITY = "unix"
"""The identity of whoever may connect to the service's unix socket and shows nothing else."""


class UnixPeers:
    """Takes a connection over the service's own unix socket for a proof: see unix_socket.py for whom it lets in."""

    wanted = "connect over the unix socket"

    async def identify(self, proof: Proof) -> str | None:
        """Returns UNIX_IDENTITY for a call over a unix socket."""
        return UNIX_IDENTITY if proof.over_unix_socket else None


class UnixUsers:
    """Takes the user who has connected to the service's unix socket for a proof: see relay.py for how that is known.

    Args:
        users: Numbers of those who may call; None: all whom the socket's mode lets in.
    """

    wanted = "connect over the unix socket"

    def __init__(self, users: Collection[int] | None) -> None:
        self._users = None if users is None else frozenset(users)

    async def identify(self, proof: Proof) -> str | None:
        """Returns "unix:" and the number of the user.

        Raises:
            NotAllowedError: It is none of those who may call.
        """
        user = proof.socket_user
        if user is None:
            return None
        if self._users is not None and user.uid not in self._users:
            raise NotAllowedError(f"user {user.uid} of this machine may not use the service; it is not in [unix] users")
        return f"{UNIX_IDENTITY}:{user.uid}"
