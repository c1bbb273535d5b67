"""A guest that is a process of this host, and the socket to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import BinaryIO

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import ProviderUnavailableError

READY_TIMEOUT = 10.0
"""Seconds that a guest may take to listen."""
END_TIMEOUT = 15.0
"""Seconds that a guest may take to kill and reap all it started; it gives itself 5 s for that."""
_STREAM_LIMIT = 1 << 18


class GuestProcess:
    """A running guest."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._pidfd: int | None = None
        with contextlib.suppress(AttributeError, ProcessLookupError):
            self._pidfd = os.pidfd_open(process.pid)

    @classmethod
    async def start(cls, binary: Path, environment: dict[str, str], log: Path) -> GuestProcess:
        """Starts a guest and returns when it listens. Ends it again when it fails or the call is cancelled.

        Args:
            binary: The guest.
            environment: All of its environment.
            log: File for what it has to say.

        Raises:
            ProviderUnavailableError: It did not come up; the error has its own words.
        """
        # Not in a thread: who waits for one and is cancelled loses the open file.
        with _open_log(log) as stderr:
            process = await asyncio.create_subprocess_exec(
                str(binary), "serve", stdin=DEVNULL, stdout=PIPE, stderr=stderr, env=environment,
                start_new_session=True, cwd="/",
            )  # fmt: skip
        guest = cls(process)
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                ready = process.stdout is not None and await process.stdout.readline() == b"ready\n"
        except TimeoutError:
            ready = False
        except BaseException:
            await finish(guest.end())
            raise
        if not ready:
            await finish(guest.end())
            words = (await asyncio.to_thread(log.read_bytes))[-500:].decode("utf-8", "replace").strip()
            raise ProviderUnavailableError(f"the guest did not come up: {words or 'it said nothing'}")
        return guest

    async def end(self) -> None:
        """Asks the guest to end and waits for it; kills it when it takes too long, whereupon its shims clean up."""
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    self._send_signal(number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(END_TIMEOUT):
                        await self._process.wait()
                        return
        finally:
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None

    def _send_signal(self, number: signal.Signals) -> None:
        # Process.send_signal reaps a child that has just ended, under the eyes of asyncio's own watcher.
        if self._pidfd is None:
            self._process.send_signal(number)
        else:
            signal.pidfd_send_signal(self._pidfd, number)


class SocketStream:
    """A byte stream over a unix socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, path: Path) -> SocketStream:
        """Connects to a socket. Raises OSError where nothing listens there."""
        return cls(*await asyncio.open_unix_connection(path, limit=_STREAM_LIMIT))

    async def receive(self, size: int) -> bytes:
        """Returns 1 to `size` bytes, or none at the end."""
        return await self._reader.read(size)

    async def send(self, data: bytes) -> None:
        """Sends all of `data`."""
        self._writer.write(data)
        await self._writer.drain()

    async def aclose(self) -> None:
        """Closes the socket."""
        if self._writer.transport.get_write_buffer_size():
            # What a stopped guest has not taken would keep the socket open until it goes on.
            self._writer.transport.abort()
        self._writer.close()
        with contextlib.suppress(OSError):
            # All who wait share one future, which a cancelled one would cancel for the others.
            await asyncio.shield(self._writer.wait_closed())


def _open_log(path: Path) -> BinaryIO:
    return path.open("ab")
