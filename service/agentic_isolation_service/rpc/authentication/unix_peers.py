"""Callers over a unix socket, which the kernel has let in by the socket's mode."""

from __future__ import annotations

from agentic_isolation_service.rpc.authentication.proof import Proof

UNIX_IDENTITY = "unix"
"""The identity of whoever may connect to the service's unix socket and shows nothing else."""


class UnixPeers:
    """Takes a connection over the service's own unix socket for a proof: see unix_socket.py for whom it lets in."""

    wanted = "connect over the unix socket"

    async def identify(self, proof: Proof) -> str | None:
        """Returns UNIX_IDENTITY for a call over a unix socket."""
        return UNIX_IDENTITY if proof.over_unix_socket else None
