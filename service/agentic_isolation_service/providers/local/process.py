"""A guest that is a process of this host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import ProviderUnavailableError, UnavailableError
from agentic_isolation_service.guest.descriptors import readable
from agentic_isolation_service.providers.local.peer import open_listener

READY_TIMEOUT = 10.0
"""Seconds that a guest may take to listen."""
END_TIMEOUT = 15.0
"""Seconds that a guest may take to kill and reap all it started; it gives itself 5 s for that."""
_READY = b"ready\n"
_left: set[int] = set()
"""Children that nobody waits for any more, to be reaped when they have ended."""


class GuestProcess:
    """A running guest, which outlives this process: a child of it, or of one that was there before.

    Either is spoken to by its pidfd, so that no signal ever meets a process that has got its pid since. Where there are
    no pidfds a child is waited for and signalled as subprocess does it.
    """

    def __init__(self, pid: int, pidfd: int | None, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._child = child

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
        started: list[GuestProcess] = []
        try:
            await finish(asyncio.to_thread(lambda: started.append(cls._spawn(binary, environment, log))))
            [guest] = started
            if await guest._is_ready():
                return guest
            await guest.end()
        except BaseException:
            for guest in started:
                await finish(guest.end())
            raise
        words = (await asyncio.to_thread(log.read_bytes))[-500:].decode("utf-8", "replace").strip()
        raise ProviderUnavailableError(f"the guest did not come up: {words or 'it said nothing'}")

    @classmethod
    def behind(cls, path: Path) -> GuestProcess | None:
        """Returns the guest that listens on a socket, also one that is stopped; None where it is dead.

        Raises:
            UnavailableError: It cannot be told for now, or on this platform.
        """
        found = open_listener(path)
        return None if found is None else cls(*found)

    async def end(self) -> None:
        """Asks the guest to end and waits for it; kills it when it takes too long, whereupon its shims clean up.

        Cancelled, it may be called again.

        Raises:
            UnavailableError: It was killed and is still there.
        """
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(number)
            self._signal(signal.SIGCONT)  # one that is stopped would not hear of SIGTERM
            if await self._has_ended():
                self.close()
                return
        raise UnavailableError(f"the guest with pid {self.pid} was killed and does not end")

    def close(self) -> None:
        """Lets go of the guest, which goes on if it runs; reaps it if it has ended. May be called twice."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self._child is not None:
            if self._child.stdout is not None:
                self._child.stdout.close()
            if self._child.returncode is None:
                _left.add(self.pid)
                self._child.returncode = 0  # else Popen complains of a child that still runs
        _reap_left()

    @classmethod
    def _spawn(cls, binary: Path, environment: dict[str, str], log: Path) -> GuestProcess:
        try:
            with log.open("ab") as stderr:
                child = subprocess.Popen(
                    [str(binary), "serve"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env=environment,
                    start_new_session=True,  # what a terminal sends to the service is not for it
                    cwd="/",
                )
        except OSError as error:
            raise ProviderUnavailableError(f"the guest cannot be started: {error}") from error
        pidfd = None
        with contextlib.suppress(AttributeError, OSError):
            pidfd = os.pidfd_open(child.pid)
        return cls(child.pid, pidfd, child)

    async def _is_ready(self) -> bool:
        """Waits until a new guest says that it listens; returns whether it does."""
        if self._child is None or self._child.stdout is None:
            raise AssertionError("it was started by this process")
        with self._child.stdout as output, contextlib.suppress(TimeoutError):
            os.set_blocking(output.fileno(), False)
            async with asyncio.timeout(READY_TIMEOUT):
                await readable(output.fileno())
                return os.read(output.fileno(), len(_READY)) == _READY
        return False

    async def _has_ended(self) -> bool:
        """Waits until it has ended, END_TIMEOUT at most; returns whether it has."""
        try:
            if self._pidfd is not None:
                async with asyncio.timeout(END_TIMEOUT):
                    await readable(self._pidfd)
            elif self._child is not None:
                await asyncio.to_thread(self._child.wait, END_TIMEOUT)
        except (TimeoutError, subprocess.TimeoutExpired):
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            elif self._child is not None:
                self._child.send_signal(number)


def _reap_left() -> None:
    for pid in tuple(_left):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended = pid  # somebody has reaped it
        if ended:
            _left.discard(pid)
