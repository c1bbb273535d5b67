"""Unix sockets: who may connect is decided by the kernel, by a socket's mode, from its first moment on.

Who of them has connected is another question, which takes a relay to ask (relay.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

_NO_GROUP = (1 << 32) - 1
"""The number of a group that is none (chown(2))."""
_UMASK = 0o077
"""A socket that is made under it is its owner's alone. It is the whole process's for that moment, so it takes nothing
from owners: other threads may be making directories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketAccess:
    """Who may connect to a unix socket: whoever may write to it."""

    mode: int = 0o600
    gid: int = -1
    """Number of its group; -1: the process's own."""


async def check(path: str, access: SocketAccess, *, group: str | None, anywhere: bool) -> SocketAccess:
    """Returns who may connect to a socket that is to be at a place, which is looked at. Makes nothing yet.

    Args:
        path: The socket's.
        access: Who may connect, but for the group.
        group: The socket's, by name or number; None: as `access` says.
        anywhere: Whether it may lie where every user could put another one in its place.

    Raises:
        OSError: Another program listens there, something that is no socket is there, every user could rename what leads
            to it, or there is no such group.
    """
    await asyncio.to_thread(_check_place, Path(path), anywhere)
    await _refuse_taken(path)
    return access if group is None else replace(access, gid=await asyncio.to_thread(_gid_of, group))


def bound(path: str, bind: Callable[[], int], access: SocketAccess) -> int:
    """Binds a socket, which nobody who may not can ever connect to, and returns what `bind` does.

    It waits for nothing: whoever has made a server must not be interrupted before it is started.

    Raises:
        OSError: It cannot be made.
    """
    before = os.umask(_UMASK)
    try:
        result = bind()
    finally:
        os.umask(before)
    if access.gid != -1:
        os.chown(path, -1, access.gid)
    os.chmod(path, access.mode)  # after chown(2), which may change it
    return result


def _check_place(path: Path, anywhere: bool) -> None:
    """Raises OSError where something else lies, or where every user could rename what leads to the socket."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(f"cannot listen on unix:{path}: something that is no socket is there; remove it")
    parent = path.absolute().parent.resolve()
    for directory in () if anywhere else (parent, *parent.parents):
        mode = directory.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise OSError(
                f"cannot listen on unix:{path}: every user may replace what lies in {directory}; take another "
                "directory, or forbid that ('chmod o-w' or '+t'), or set insecure_listen"
            )


def _gid_of(name: str) -> int:
    if name.isdecimal() and int(name) < _NO_GROUP:
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise OSError(f"there is no group {name!r} for the socket") from None


async def _refuse_taken(path: str) -> None:
    """Raises OSError where somebody listens on this unix socket: gRPC would take it away from them."""
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return
    writer.close()
    raise OSError(f"cannot listen on unix:{path}: another program listens there")
