"""A service as a process of its own, as users run it."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from agentic_isolation_service.config import IMAGE_VARIABLE, LABELS_VARIABLE

CHECKOUT = Path(__file__).parents[2]
START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0
_ANNOUNCEMENT = "listening on "
_OF_ENGINE = {IMAGE_VARIABLE, LABELS_VARIABLE}
"""Set by tests/engine/plugin.py, with DOCKER_HOST: how Docker workspaces are made in a test run."""


def python_environment(**changes: str) -> dict[str, str]:
    """Returns the environment in which `python -m` finds the packages and the tests of this checkout."""
    environment = {
        name: value for name, value in os.environ.items() if name in _OF_ENGINE or not name.startswith("AGENTIC_")
    }
    environment["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "service")])
    environment["PYTHONWARNINGS"] = "error"
    return environment | changes


class ServedProcess:
    """A program that announces its address on standard output; by default `agentic-isolation serve`.

    Args:
        options: Options of `serve`.
        module: Another module to run in its place.
        environment: Variables of its environment beside ours.
    """

    def __init__(
        self, *options: str, module: str = "agentic_isolation_service", environment: dict[str, str] | None = None
    ) -> None:
        command = [
            sys.executable,
            "-m",
            module,
            *(["serve"] if module == "agentic_isolation_service" else []),
            *options,
        ]
        with tempfile.NamedTemporaryFile(prefix="service-log-", delete=False) as log:
            self._log = Path(log.name)
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=python_environment(**environment or {}), cwd="/"
            )
        try:
            self.target = announced(self.process, "the service").removeprefix(_ANNOUNCEMENT)
        except BaseException as error:
            error.add_note(self.log)
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has written to standard error so far."""
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end and returns its exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(STOP_TIMEOUT)
        finally:
            self.kill()

    def kill(self) -> None:
        """Kills it, as a crash would. May be called when it has ended."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.unlink(missing_ok=True)


def announced(process: subprocess.Popen[bytes], name: str) -> str:
    """Returns the first line that a program prints, which it must do in time."""
    assert process.stdout is not None
    deadline = time.monotonic() + START_TIMEOUT
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            assert selector.select(deadline - time.monotonic()), f"{name} did not start in time"
            piece = os.read(process.stdout.fileno(), 4096)
            assert piece, f"{name} ended before it had started"
            line += piece
    return line.decode().strip()
