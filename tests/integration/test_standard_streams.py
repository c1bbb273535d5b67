"""A service whose standard streams are closed, broken or full runs as any other."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.lasting import execute
from tests.integration.wire import a_workspace, connected
from tests.support.eventually import eventually
from tests.support.pipes import fill
from tests.support.program import Running, python_environment


class Served(Running):
    """A service, started by a line of the shell that says what its streams are.

    Args:
        directory: Where its socket is made.
        line: The shell's line, in which "$@" is the service.
        stdout: Standard output of the shell; None: ours.
        stderr: Standard error of the shell; None: ours.
    """

    def __init__(self, directory: Path, line: str, *, stdout: int | None = None, stderr: int | None = None) -> None:
        self.target = f"unix:{directory}/grpc.sock"
        serve = [sys.executable, "-m", "agentic_isolation_service", "serve", "--address", self.target]
        self.process = subprocess.Popen(
            ["sh", "-c", line, "sh", *serve], stdout=stdout, stderr=stderr, env=python_environment(), cwd="/"
        )

    async def works(self) -> None:
        """Uses it, and sees it end in good order."""
        await eventually(self._listens, "it listens")
        async with connected(self.target) as stub, a_workspace(stub) as workspace:
            assert (await stub.Execute(execute(workspace, "echo works"))).stdout.head == b"works\n"
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self.process.wait, 20) == 0

    def _listens(self) -> bool:
        """Returns whether it takes connections, which is a moment after its socket is there."""
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(self.target.removeprefix("unix:")) == 0


@pytest.fixture
def ground(warm: None) -> None:
    """Nothing is asked of the shared service here."""


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reads, writes = os.pipe()
    try:
        yield reads, writes
    finally:
        os.close(reads)
        os.close(writes)


async def test_log_that_nobody_reads(directory: Path) -> None:
    """Without a thread of its own the log would stop the event loop at its first line."""
    with pipe() as (_, log):
        fill(log)
        with Served(directory, 'exec "$@"', stderr=log, stdout=subprocess.DEVNULL) as service:
            await service.works()


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
async def test_closed_streams(directory: Path, closed: str) -> None:
    with Served(directory, f'exec "$@" {closed}') as service:
        await service.works()


async def test_closed_streams_leave_their_numbers_to_nothing_else(directory: Path) -> None:
    with Served(directory, 'exec "$@" <&- >&- 2>&-') as service:
        await eventually(lambda: Path(service.target.removeprefix("unix:")).exists(), "it listens")
        streams = [os.readlink(f"/proc/{service.pid}/fd/{number}") for number in range(3)]
        assert streams == ["/dev/null"] * 3
        await service.works()


async def test_announcement_that_nobody_takes(directory: Path) -> None:
    with pipe() as (log, writes):
        reads, announcement = os.pipe()
        os.close(reads)
        try:
            service = Served(directory, 'exec "$@"', stdout=announcement, stderr=writes)
        finally:
            os.close(announcement)
        with service:
            await service.works()
        told = os.read(log, 64 << 10).decode()
    assert f"standard output takes nothing: listening on {service.target} cause=Broken pipe" in told
    assert "Traceback" not in told
