"""The terminal that this program was started in: raw while it is somebody else's, and as it was before in the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Self

from agentic_isolation import TerminalSize

_READ_BYTES = 32 << 10
_FALLBACK_SIZE = TerminalSize(80, 24)


def is_terminal(*descriptors: int) -> bool:
    """Returns whether all of the descriptors are terminals."""
    return all(os.isatty(descriptor) for descriptor in descriptors)


def terminal_size(descriptor: int) -> TerminalSize:
    """Returns a terminal's size; where it has none, as a serial line has not, 80 × 24."""
    try:
        columns, rows = os.get_terminal_size(descriptor)
    except OSError:
        return _FALLBACK_SIZE
    return TerminalSize(columns, rows) if columns and rows else _FALLBACK_SIZE


@contextlib.contextmanager
def raw(descriptor: int, on_resize: Callable[[], object]) -> Iterator[None]:
    """Makes a terminal raw, so that every key comes through as it is, until this is left, however that happens.

    A SIGTSTP to this program gives the terminal back, stops, and makes it raw again when the program goes on. Needs a
    running event loop.

    Args:
        descriptor: The terminal.
        on_resize: Is told that it may have another size.
    """
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(descriptor)

    def restore() -> None:
        with contextlib.suppress(termios.error):  # it has been hung up
            # Not TCSAFLUSH, which would wait for output that a stopped terminal never takes.
            termios.tcsetattr(descriptor, termios.TCSANOW, before)

    def stop() -> None:
        restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        tty.setraw(descriptor, termios.TCSANOW)
        on_resize()

    try:
        tty.setraw(descriptor, termios.TCSANOW)
        loop.add_signal_handler(signal.SIGTSTP, stop)
        loop.add_signal_handler(signal.SIGWINCH, on_resize)
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        loop.remove_signal_handler(signal.SIGTSTP)
        restore()


async def read(descriptor: int) -> bytes:
    """Waits for input and returns it; nothing at its end. Cancelled, it takes none."""
    if _always_ready(descriptor):
        return await asyncio.to_thread(os.read, descriptor, _READ_BYTES)
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    try:
        return os.read(descriptor, _READ_BYTES)
    except OSError:
        return b""  # a terminal that was hung up


async def read_to_end(descriptor: int, most: int | None = None) -> bytes:
    """Waits for all the input that there is, and returns it; or what there is of it once that is more than `most`."""
    content = bytearray()
    while (most is None or len(content) <= most) and (data := await read(descriptor)):
        content += data
    return bytes(content)


def _always_ready(descriptor: int) -> bool:
    """Returns whether it is nothing that an event loop can wait for: a file, or a device such as /dev/null."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not os.isatty(descriptor))


class Writer:
    """Writes to a descriptor without holding up the event loop where that is a terminal.

    Args:
        descriptor: It is neither closed nor made non-blocking: others share it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._own: int | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            path = os.ttyname(self._descriptor)
            self._own = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            os.close(self._own)

    async def write(self, data: bytes) -> None:
        """Writes all of it.

        Raises:
            OSError: Nobody takes it any more.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor if self._own is None else self._own, view) :]
            except BlockingIOError:
                await self._writable()

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        descriptor = self._descriptor if self._own is None else self._own
        ready = asyncio.Event()
        loop.add_writer(descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(descriptor)
