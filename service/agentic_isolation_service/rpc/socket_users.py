"""Who is at the other end of a connection to the service's unix socket, as its name says.

gRPC for Python does not tell a peer's credentials, but it tells the name that the socket at the other end is bound to.
So the relay binds its end of each connection that it passes on to a name of the abstract namespace (unix(7)) with the
user in it, behind a secret of this process: what has no such name has not come through the relay.
"""

from __future__ import annotations

import secrets
import socket
from typing import NamedTuple

from agentic_isolation_service.peer_credentials import peer_credentials

_PREFIX = f"agentic-isolation-{secrets.token_hex(16)}/"
_PEER = f"unix-abstract:{_PREFIX}"
"""As gRPC writes it."""


class SocketUser(NamedTuple):
    """Whoever has connected, as the kernel knew them then."""

    uid: int
    pid: int
    """0: of no process that this one can see."""


def user_at(connection: socket.socket) -> SocketUser:
    """Returns who is at the other end of a connection that was accepted."""
    found = peer_credentials(connection)
    return SocketUser(found.uid, found.pid)


def address_of(user: SocketUser, number: int) -> bytes:
    """Returns what to bind the end of a user's connection to; each has a number of its own."""
    return f"\0{_PREFIX}{user.uid}/{user.pid}/{number}".encode()


def user_of(peer: str) -> SocketUser | None:
    """Returns whose a connection is, by its peer as gRPC writes it; None: it has not come through the relay."""
    if not peer.startswith(_PEER):
        return None
    uid, pid, _ = peer.removeprefix(_PEER).split("/")
    return SocketUser(int(uid), int(pid))


def described(peer: str) -> str:
    """Returns a peer, as gRPC writes it, for people to read."""
    user = user_of(peer)
    return peer if user is None else f"unix:uid={user.uid},pid={user.pid}"
