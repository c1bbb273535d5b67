"""A relay before the server's unix socket: it asks the kernel who connects, and says so by the name of a connection.

gRPC for Python takes no connection that somebody else has accepted, so each is passed on, byte for byte, to a second
socket, beside the first one and its owner's alone. It lies between a client and every byte of its calls, and is there
only where users are to be told apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Callable
from typing import cast

from agentic_isolation_service.rpc import unix_socket
from agentic_isolation_service.rpc.socket_users import SocketUser, address_of, user_at
from agentic_isolation_service.rpc.unix_socket import SocketAccess
from agentic_isolation_service.settings.listening import RELAYED_SUFFIX

_BACKLOG = 1024
"""Connections that may wait to be accepted."""
_FULL = 0.01
"""Seconds until the server's socket is tried again where too many connections wait there."""
_LAST_BYTES = 10.0
"""Seconds for what is left of a connection that has ended at one end to be taken at the other."""


class Relay:
    """Passes connections on to `inner_path` that come to another path, once it listens.

    Args:
        path: Where it is to listen, which was checked (unix_socket.py).
        most: Connections at a time; who comes when there are so many is hung up on.
    """

    def __init__(self, path: str, *, most: int) -> None:
        self.inner_path = path + RELAYED_SUFFIX
        """Where the server has to listen."""
        self._path = path
        self._most = most
        self._numbers = itertools.count()
        self._listening: tuple[asyncio.Server, int] | None = None
        """And the inode of the socket."""
        self._ends: set[_End] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    async def listen(self, access: SocketAccess) -> None:
        """Begins to listen.

        Args:
            access: Who may connect.

        Raises:
            OSError: It cannot listen there.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            inode = await asyncio.to_thread(_bound, listener, self._path, access)
            server = await asyncio.get_running_loop().create_unix_server(self._accepted, sock=listener)
        except BaseException:
            listener.close()
            raise
        self._listening = server, inode

    async def aclose(self, patience: float) -> None:
        """Takes no more connections, and ends those that are there when what the server has sent last was taken.

        Args:
            patience: Seconds for that.
        """
        if self._listening is not None:
            server, inode = self._listening
            server.close()
            await asyncio.to_thread(_remove, self._path, inode)
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        ending = [end.ended for end in self._ends]
        for end in list(self._ends):
            end.hang_up()
        if ending:
            await asyncio.wait(ending, timeout=patience)
        for end in list(self._ends):
            end.abort()

    def _accepted(self) -> _End:
        return _End(self._begin, self._ends)

    def _begin(self, outer: _End) -> None:
        """Takes a connection that has just been accepted."""
        if len(self._ends) > 2 * self._most:
            outer.abort()
            return
        outer.hold_back()
        task = asyncio.create_task(self._pass_on(outer, user_at(outer.socket)))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _pass_on(self, outer: _End, user: SocketUser) -> None:
        inner = _End(None, self._ends)
        with contextlib.suppress(OSError), contextlib.ExitStack() as undoing:  # OSError: the server has ended
            undoing.callback(outer.abort)
            connection = undoing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            connection.setblocking(False)
            connection.bind(address_of(user, next(self._numbers)))
            while not _is_connected(connection, self.inner_path):  # noqa: ASYNC110  the kernel tells nobody
                await asyncio.sleep(_FULL)
            await asyncio.get_running_loop().create_unix_connection(lambda: inner, sock=connection)
            outer.join(inner)
            undoing.pop_all()


class _End(asyncio.Protocol):
    """One end of a connection that is passed on: what comes here goes out at the other one.

    Args:
        begin: Is given it when it is connected; None: nobody has to know.
        ends: Where it is kept while it is.
    """

    _transport: asyncio.Transport

    def __init__(self, begin: Callable[[_End], None] | None, ends: set[_End]) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begin = begin
        self._ends = ends
        self._other: _End | None = None
        self._giving_up: asyncio.TimerHandle | None = None

    @property
    def socket(self) -> socket.socket:
        """The socket, to be asked about."""
        found: socket.socket = self._transport.get_extra_info("socket")
        return found

    def join(self, other: _End) -> None:
        """Makes the two ends one connection, and lets come what was held back."""
        self._other, other._other = other, self
        self.let_come()

    def hold_back(self) -> None:
        """Takes nothing more until `let_come`."""
        self._transport.pause_reading()

    def let_come(self) -> None:
        """Takes what comes."""
        self._transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Sends it, sooner or later."""
        self._transport.write(data)

    def hang_up(self) -> None:
        """Ends when what is still to go out was taken, or is not within a time."""
        self._transport.close()
        if self._giving_up is None and not self.ended.done():
            self._giving_up = asyncio.get_running_loop().call_later(_LAST_BYTES, self.abort)

    def abort(self) -> None:
        """Ends at once."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Is called by the loop, as all that follows."""
        self._transport = cast(asyncio.Transport, transport)
        self._ends.add(self)
        if self._begin is not None:
            self._begin(self)

    def data_received(self, data: bytes) -> None:
        """Passes it on."""
        if self._other is not None:
            self._other.send(data)

    def pause_writing(self) -> None:
        """Takes no more at the other end than is taken at this one."""
        if self._other is not None:
            self._other.hold_back()

    def resume_writing(self) -> None:
        """Lets it come again."""
        if self._other is not None:
            self._other.let_come()

    def connection_lost(self, error: Exception | None) -> None:
        """Has the other end follow."""
        self._ends.discard(self)
        self.ended.set_result(None)
        if self._giving_up is not None:
            self._giving_up.cancel()
        other, self._other = self._other, None
        if other is not None:
            other.hang_up()


def _bound(listener: socket.socket, path: str, access: SocketAccess) -> int:
    """Begins to listen at a path, in place of a service that was killed, and returns the inode that is there now."""

    def bind() -> int:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        return os.stat(path).st_ino

    return unix_socket.bound(path, bind, access)


def _remove(path: str, inode: int) -> None:
    """Removes a socket, but not what has taken its place."""
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path).st_ino == inode:
            os.unlink(path)


def _is_connected(connection: socket.socket, path: str) -> bool:
    """Connects; returns False where so many wait already that one has to try again later."""
    try:
        connection.connect(path)
    except BlockingIOError:
        return False
    return True
