"""Client programs in processes of their own, to be killed."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import Self

from tests.support.service import announced, python_environment
from tests.support.ways import Way


class ClientProgram:
    """A running tests/support/client.py, which has made a workspace and runs commands in it.

    Args:
        way: Its way in.
        mode: `execute`, `stream`, or `idle` for a child in the background of a command that has ended.
        mark: The mark of its commands.
        lease: Seconds that its workspace outlives it.
        retry_timeout: Seconds that its commands outlive it.
    """

    def __init__(self, way: Way, *, mode: str, mark: str, lease: float, retry_timeout: float = 0) -> None:
        arguments = [way.name, way.target, str(way.service_pid), str(lease), mode, mark, str(retry_timeout)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.client", *arguments],
            stdout=subprocess.PIPE,
            env=python_environment(),
            cwd="/",
        )
        try:
            self.workspace_id = announced(self._process, "the client")
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """Kills it without a warning. May be called twice."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
