"""The command line in processes of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tests.support.fork_server import ForkServer
from tests.support.program import python_environment

_MODULE = "agentic_isolation_service"
_PROGRAM = (sys.executable, "-m", _MODULE)
_TIMEOUT = 60.0


def run(
    *arguments: str,
    input: str | None = None,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
    text: bool = True,
) -> subprocess.CompletedProcess[Any]:
    """Runs the program to its end."""
    variables = python_environment(**environment or {})
    if input is None and ForkServer.shared is not None and "PYTHONPATH" not in (environment or {}):
        return _forked(ForkServer.shared, arguments, variables, cwd, text=text)
    return subprocess.run(
        [*_PROGRAM, *arguments],
        env=variables,
        capture_output=True,
        cwd=cwd,
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        text=text,
        timeout=_TIMEOUT,
        check=False,
    )


def _forked(
    forks: ForkServer, arguments: Sequence[str], environment: dict[str, str], cwd: Path | None, *, text: bool
) -> subprocess.CompletedProcess[Any]:
    with tempfile.TemporaryFile() as errors:
        process = forks.start(_MODULE, *arguments, environment=environment, stderr=errors, cwd=cwd or Path.cwd())
        late = threading.Timer(_TIMEOUT, process.kill)
        late.start()
        with process.stdout:
            stdout = process.stdout.read()
        code = process.wait(_TIMEOUT)
        late.cancel()
        errors.seek(0)
        stderr = errors.read()
    if text:
        return subprocess.CompletedProcess(arguments, code, stdout.decode(), stderr.decode())
    return subprocess.CompletedProcess(arguments, code, stdout, stderr)


class Program:
    """The program while it runs."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self.process = process
        self._errors = errors

    def line(self) -> str:
        """Waits for the next line of its standard output; empty at the end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def wait(self) -> int:
        """Waits for its end and returns its exit code."""
        return self.process.wait(_TIMEOUT)

    def errors(self) -> str:
        """What it has written to standard error so far."""
        self._errors.seek(0)
        return self._errors.read()


@contextlib.contextmanager
def started(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[Program]:
    """Starts the program; on the way out asks it to end, where it has not."""
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [*_PROGRAM, *arguments],
            env=python_environment(**environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            yield Program(process, errors)
        finally:
            process.terminate()
            try:
                process.wait(_TIMEOUT)
            finally:
                process.kill()
