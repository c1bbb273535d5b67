"""Who listens on a unix socket: how a guest is found that is no child of this process."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

from agentic_isolation.errors import UnavailableError
from agentic_isolation_service.peer_credentials import peer_credentials

_ATTEMPTS = 3
_WANTS = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""What says nothing about the other side: it has more connections waiting than it takes, or this side is short."""


def tells_nothing(error: OSError) -> bool:
    """Returns whether a connection failed for a reason that does not tell whether anybody listens."""
    return error.errno in _WANTS


def has_listener(path: Path) -> bool:
    """Returns whether anybody may listen on a socket, be it a process that is stopped. Takes microseconds."""
    try:
        with _connected(path) as connection:
            return connection is not None
    except OSError as error:
        return tells_nothing(error)


def open_listener(path: Path) -> tuple[int, int] | None:
    """Returns the pid of the process that listens on a socket, and a pidfd, to be closed; None where nobody does.

    The pid is that of the process which called listen(2), so it answers for one that is stopped as well. Takes
    microseconds.

    Raises:
        UnavailableError: It cannot be told for now, or on this platform.
    """
    try:
        for _ in range(_ATTEMPTS):
            with _connected(path) as connection:
                if connection is None:
                    return None
                pid = peer_credentials(connection).pid
                try:
                    pidfd = os.pidfd_open(pid)
                except ProcessLookupError:
                    return None
                # The pid may have become somebody else's before it was opened, but only after its process was gone,
                # and with a process go its connections.
                if not _was_closed(connection):
                    return pid, pidfd
                os.close(pidfd)
    except (AttributeError, OSError) as error:
        raise UnavailableError(f"who listens on {path} cannot be told: {error}") from error
    raise UnavailableError(f"who listens on {path} closes every connection at once")


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[socket.socket | None]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)  # one to a unix socket is made at once, or not at all
        try:
            connection.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            yield None
        else:
            yield connection


def _was_closed(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, 0)  # a hang-up is told unasked
    return bool(poll.poll(0))
