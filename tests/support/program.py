"""Programs of these tests that run as processes of their own, to be watched, asked to end, and killed."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from agentic_isolation_service.config import IMAGE_VARIABLE, LABELS_VARIABLE
from tests.support.fork_server import ForkedProcess, ForkServer

CHECKOUT = Path(__file__).parents[2]
START_TIMEOUT = 30.0
_OF_ENGINE = {IMAGE_VARIABLE, LABELS_VARIABLE}
"""Set by tests/engine/plugin.py, with DOCKER_HOST: how Docker workspaces are made in a test run."""
_NO_ENTRANCE = ["setpriv", "--bounding-set=-sys_admin"] if os.geteuid() == 0 else []


class Running:
    """A process that was started. Left, it is killed."""

    process: subprocess.Popen[bytes] | ForkedProcess

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has complained about so far, where that is kept."""
        return ""

    def kill(self) -> None:
        """Kills it without a warning, as a crash would. May be called when it has ended."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    @contextlib.contextmanager
    def coming_up(self) -> Iterator[None]:
        """Kills it, and says what it has complained about, where it does not come up within."""
        try:
            yield
        except BaseException as error:
            error.add_note(self.log)
            self.kill()
            raise


class Program(Running):
    """A module that is run as a program, and prints a line when it has come up. Left, it is killed.

    Args:
        module: The module.
        arguments: Its arguments.
        name: What it is called when it does not come up.
        stderr: Where its standard error goes; None: where ours does.
        environment: Variables of its environment beside python_environment's.
        forks: What forks it; None: it starts from nothing, as users start it.
        enters: Whether it may enter other namespaces, where this process may. One that is forked may.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        name: str,
        stderr: IO[bytes] | None = None,
        environment: dict[str, str] | None = None,
        forks: ForkServer | None = None,
        enters: bool = True,
    ) -> None:
        variables = python_environment(**environment or {})
        if forks is None:
            command = [*([] if enters else _NO_ENTRANCE), sys.executable, "-m", module, *arguments]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=variables, cwd="/")
        else:
            self.process = forks.start(module, *arguments, environment=variables, stderr=stderr)
        with self.coming_up():
            self.announcement = announced(self.process, name)


def python_environment(**changes: str) -> dict[str, str]:
    """Returns the environment in which `python -m` finds the packages and the tests of this checkout."""
    environment = {
        name: value for name, value in os.environ.items() if name in _OF_ENGINE or not name.startswith("AGENTIC_")
    }
    environment["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "service")])
    environment["PYTHONWARNINGS"] = "error"
    return environment | changes


def announced(process: subprocess.Popen[bytes] | ForkedProcess, name: str) -> str:
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
