"""Who is at the other end of a unix socket, as the kernel knows it."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

_CREDENTIALS = struct.Struct("iII")
"""struct ucred (unix(7))."""


class PeerCredentials(NamedTuple):
    """A process, as it was when it connected, or called listen(2)."""

    pid: int
    """0: of no process that this one can see."""
    uid: int
    gid: int


def peer_credentials(connection: socket.socket) -> PeerCredentials:
    """Returns who is at the other end of a connection (SO_PEERCRED).

    Raises:
        OSError: It is none.
        AttributeError: The platform does not tell.
    """
    return PeerCredentials._make(
        _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    )
