"""A connection to the guest of a container on this host, made from within the container's network namespace.

Abstract sockets belong to a network namespace, and a socket to that of the thread which has made it. So a thread enters
the container's, makes a socket there and ends; connecting it is up to anybody. Nothing of the container's changes, and
the thread runs nothing else: it is never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from agentic_isolation._cleanup import finish
from agentic_isolation_service.guest.descriptors import readable
from agentic_isolation_service.guest.stream import SocketStream
from agentic_isolation_service.peer_credentials import peer_credentials
from agentic_isolation_service.providers.docker.container import GUEST_SOCKET

_CLONE_NEWNET = 0x40000000
_LISTEN_TIMEOUT = 5.0
"""Seconds that a guest which was just started may take to listen."""
_FIRST_PAUSE, _LAST_PAUSE = 0.001, 0.02
"""Seconds between two attempts to connect: nothing tells when an abstract socket begins to listen."""
_WORD_TIMEOUT = 1.0
"""Seconds that a guest may take for its first word; one that takes longer is stopped."""


@dataclass(frozen=True, slots=True)
class ContainerInit:
    """The first process of a container, as the engine tells it."""

    container_id: str
    pid: int


class NoEntryError(OSError):
    """This process may not enter other namespaces, or its platform has none."""


class StrangerError(OSError):
    """The process is in no such container: its pid is one of another host, or was given away again."""


async def connect_to_guest(init: ContainerInit) -> SocketStream:
    """Connects to the guest that is a container's first process.

    A guest that was just started is waited for until it listens. One that is stopped is none: it is given
    _WORD_TIMEOUT. Cancelled, it leaves nothing.

    Raises:
        NoEntryError: Nothing can be reached in this way.
        StrangerError: The process is not the container's.
        ProcessLookupError: It has ended, or was never there.
        OSError: It does not listen, or not itself; TimeoutError: it does not answer.
    """
    with _opened(init.pid) as process:
        connection = await _socket_beside(init, process)
        try:
            await _connect(connection, process)
            pid = peer_credentials(connection).pid
            if pid != init.pid:
                raise ConnectionError(f"the process {pid} listens in the place of the guest, which is {init.pid}")
            try:
                async with asyncio.timeout(_WORD_TIMEOUT):
                    await readable(connection.fileno())
            except TimeoutError:
                raise TimeoutError(f"the guest has said nothing for {_WORD_TIMEOUT:g} s") from None
            if not connection.recv(1, socket.MSG_PEEK):
                raise ConnectionResetError("the guest has hung up")
            return await SocketStream.over(connection)
        except BaseException:
            connection.close()
            raise


@contextlib.contextmanager
def _opened(pid: int) -> Iterator[int]:
    try:
        process = os.pidfd_open(pid)
    except AttributeError:
        raise NoEntryError("this platform has no namespaces") from None
    try:
        yield process
    finally:
        os.close(process)


async def _socket_beside(init: ContainerInit, process: int) -> socket.socket:
    """Returns a socket of the network namespace of a process."""
    made: list[socket.socket] = []
    try:
        await finish(_in_thread_of_its_own(lambda: made.append(_enter_and_make(init, process))))
    except BaseException:
        for connection in made:
            connection.close()
        raise
    [connection] = made
    return connection


async def _in_thread_of_its_own(function: Callable[[], None]) -> None:
    executor = ThreadPoolExecutor(1, thread_name_prefix="agentic-namespace")
    try:
        running = asyncio.get_running_loop().run_in_executor(executor, function)
    except RuntimeError as error:  # Python's word for EAGAIN
        executor.shutdown(wait=False)
        raise BlockingIOError(f"there can be no thread for it: {error}") from error
    try:
        await running
    finally:
        executor.shutdown(wait=False)


def _enter_and_make(init: ContainerInit, process: int) -> socket.socket:
    """Runs in a thread of its own, which it leaves in the namespace. Takes a tenth of a millisecond."""
    try:
        groups = Path(f"/proc/{init.pid}/cgroup").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ProcessLookupError("the guest has ended") from None
    if init.container_id not in groups:
        if _has_ended(process):
            raise ProcessLookupError("the guest has ended")
        raise StrangerError(f"the process {init.pid} of this host is not in the container")
    libc = ctypes.CDLL(None, use_errno=True)
    # That the process can be entered means that it has not ended, so it was its file that was read.
    if libc.setns(process, _CLONE_NEWNET):
        number = ctypes.get_errno()
        if number == errno.ESRCH:
            raise ProcessLookupError("the guest has ended")
        raise NoEntryError(number, f"network namespaces cannot be entered: {os.strerror(number)}")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    return connection


async def _connect(connection: socket.socket, process: int) -> None:
    """Connects to the guest, as soon as it listens while its process lives."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + _LISTEN_TIMEOUT, _FIRST_PAUSE
    while True:
        try:
            connection.connect(f"\0{GUEST_SOCKET.removeprefix('@')}")
        except (ConnectionRefusedError, BlockingIOError):  # the latter with more waiting than it takes
            if _has_ended(process):
                raise ProcessLookupError("the guest has ended") from None
            if loop.time() > deadline:
                raise
        else:
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LAST_PAUSE)


def _has_ended(process: int) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))
