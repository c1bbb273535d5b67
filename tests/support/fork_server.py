"""Programs that are forked from a process which has the service loaded: imports are most of what a start costs.

`python -m tests.support.fork_server DESCRIPTOR` takes requests from that socket. The programs are children of who asks,
which must be a subreaper.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self

_REQUEST_BYTES = 1 << 16


class ForkedProcess:
    """A program that a fork server has started; what Program uses of subprocess.Popen.

    Args:
        pid: Its process, a child of this one.
        stdout: What reads its standard output.
    """

    def __init__(self, pid: int, stdout: IO[bytes]) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        return self._collect(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end. Raises TimeoutError where that does not come within `timeout` seconds."""
        if self.returncode is None and timeout is not None:
            descriptor = os.pidfd_open(self.pid)
            try:
                if not select.select([descriptor], [], [], timeout)[0]:
                    raise TimeoutError(f"process {self.pid} has not ended within {timeout:g} s")
            finally:
                os.close(descriptor)
        code = self._collect(0)
        assert code is not None
        return code

    def _collect(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class ForkServer:
    """The process that has everything loaded. Left, it ends; what it has started goes on.

    Args:
        environment: Of the process; programs have their own.
    """

    shared: ClassVar[ForkServer | None] = None
    """What services of this test process are forked by, where there is anything."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._turn = threading.Lock()
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                cwd="/",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.wait()

    @contextlib.contextmanager
    def sharing(self) -> Iterator[None]:
        """Has it fork services meanwhile."""
        ForkServer.shared = self
        try:
            yield
        finally:
            ForkServer.shared = None

    def start(
        self,
        module: str,
        *arguments: str,
        environment: dict[str, str],
        stderr: IO[bytes] | None,
        cwd: Path | None = None,
    ) -> ForkedProcess:
        """Runs a module as a program, without a standard input."""
        reads, writes = os.pipe()
        try:
            asked = {"argv": [module, *arguments], "environment": environment, "cwd": str(cwd or "/")}
            request = json.dumps(asked).encode()
            errors = sys.stderr.fileno() if stderr is None else stderr.fileno()
            with self._turn:
                socket.send_fds(self._connection, [request], [writes, errors])
                pid = int(self._connection.recv(_REQUEST_BYTES))
        except BaseException:
            os.close(reads)
            raise
        finally:
            os.close(writes)
        return ForkedProcess(pid, os.fdopen(reads, "rb", buffering=0))


def _next_program(connection: socket.socket) -> dict[str, object] | None:
    """Forks a program for each request. Returns the request in the program, None in the server when nobody asks."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, 2)
        if not request:
            return None
        reads, writes = os.pipe()
        between = os.fork()
        if between == 0:
            # Its child is an orphan at once, and goes to the subreaper.
            if program := os.fork():
                os.write(writes, str(program).encode())
                os._exit(0)
            os.close(reads)
            os.close(writes)
            for number, descriptor in enumerate(descriptors, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
            asked: dict[str, object] = json.loads(request)
            return asked
        os.waitpid(between, 0)
        connection.send(os.read(reads, _REQUEST_BYTES))
        for descriptor in (reads, writes, *descriptors):
            os.close(descriptor)


def _load() -> None:
    import agentic_isolation_service.cli.serve
    import agentic_isolation_service.providers.docker
    import agentic_isolation_service.providers.local
    import agentic_isolation_service.serving  # noqa: F401

    gc.freeze()


def _main() -> None:
    _load()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        asked = _next_program(connection)
    if asked is None:
        return
    argv, environment, cwd = asked["argv"], asked["environment"], asked["cwd"]
    assert isinstance(argv, list)
    assert isinstance(cwd, str)
    assert isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    tempfile.tempdir = None
    random.seed()
    sys.argv = argv
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
