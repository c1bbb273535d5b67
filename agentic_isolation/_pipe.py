"""Bytes from an event loop to a thread, as fast as the thread takes them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

_CAPACITY = 1 << 20
"""Bytes that wait for the thread at most, beside the last piece."""


class PipeAbortedError(Exception):
    """Nobody will write the rest."""


class ThreadPipe:
    """A pipe whose one end is a coroutine's and the other a thread's. Made in the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._ended = False
        self._aborted = False
        self._left = False

    async def write(self, data: bytes) -> bool:
        """Passes bytes on as the thread takes them. Returns whether it still reads."""
        with self._changed:
            self._pieces.append(data)
            self._waiting += len(data)
            self._changed.notify()
        while self._waiting > _CAPACITY and not self._left:
            self._room.clear()
            if self._waiting > _CAPACITY and not self._left:
                await self._room.wait()
        return not self._left

    def end(self, *, aborted: bool = False) -> None:
        """Says that nothing more comes; `aborted`: though there should."""
        with self._changed:
            self._ended, self._aborted = True, aborted
            self._changed.notify()

    def read(self) -> bytes:
        """Returns the next bytes, in the thread; empty at the end.

        Raises:
            PipeAbortedError: The rest is missing.
        """
        with self._changed:
            while not self._pieces and not self._ended:
                self._changed.wait()
            if self._aborted:
                raise PipeAbortedError
            piece = self._pieces.popleft() if self._pieces else b""
            self._waiting -= len(piece)
        self._loop.call_soon_threadsafe(self._room.set)
        return piece

    def leave(self) -> None:
        """Says that the thread reads no more."""
        self._left = True
        self._loop.call_soon_threadsafe(self._room.set)
