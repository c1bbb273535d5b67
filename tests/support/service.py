"""A service as a process of its own, as users run it."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from types import TracebackType

from tests.support.fork_server import ForkServer
from tests.support.program import Program

STOP_TIMEOUT = 30.0
_ANNOUNCEMENT = "listening on "
_SERVICE = "agentic_isolation_service"


class ServedProcess(Program):
    """A program that announces its address on standard output; by default `agentic-isolation serve`.

    Args:
        options: Options of `serve`.
        module: Another module to run in its place.
        environment: Variables of its environment beside ours.
        from_nothing: Whether it starts as users start it, with all its imports; else a fork server that is shared
            forks it, where there is one.
        enters: Whether it may enter containers' namespaces; else it starts from nothing, and has bridges to all guests.
    """

    def __init__(
        self,
        *options: str,
        module: str = _SERVICE,
        environment: dict[str, str] | None = None,
        from_nothing: bool = False,
        enters: bool = True,
    ) -> None:
        command = ["serve"] if module == _SERVICE else []
        with tempfile.NamedTemporaryFile(prefix="service-log-", delete=False) as log:
            self._log = Path(log.name)
            super().__init__(
                module,
                *command,
                *options,
                name="the service",
                stderr=log,
                environment=environment,
                forks=ForkServer.shared if enters and not from_nothing else None,
                enters=enters,
            )
        self.target = self.announcement.removeprefix(_ANNOUNCEMENT)

    @property
    def log(self) -> str:
        """What it has written to standard error so far."""
        return self._log.read_text(errors="replace")

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
        """Kills it and removes its log."""
        super().kill()
        self._log.unlink(missing_ok=True)
