"""Whether this process may open as many files as one more workspace needs, and still hear of whoever connects."""

from __future__ import annotations

import resource
import socket

_EACH = 3
"""File descriptors of a workspace that is made: its link, its process, and what its making needs in passing."""
_KEPT = 8
"""What part of all file descriptors is kept for connections and calls: an eighth."""


def is_room(under_way: int) -> bool:
    """Returns whether there are file descriptors for one more workspace, with so many others under way.

    A process that had used them up would accept no connection: nobody could ask it to destroy a workspace, or how it
    is. Takes microseconds.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return True
    try:
        with socket.socket() as probe:
            # The lowest that is free: those below are open, and there are hardly any above.
            used = probe.fileno()
    except OSError:
        return False
    return used + _EACH * (under_way + 1) <= limit - limit // _KEPT
