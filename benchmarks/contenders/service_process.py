"""A service as it is deployed: `agentic-isolation serve`, on a unix socket, with its state on disk."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 60.0


class ServiceProcess:
    """A service that runs.

    Args:
        process: Its process.
        target: The address that it listens on.
        directory: Where its socket and its state lie.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, target: str, directory: tempfile.TemporaryDirectory[str]
    ) -> None:
        self._process = process
        self.pid = process.pid
        self.target = target
        self._directory = directory

    @classmethod
    async def start(cls, configuration: str = "") -> ServiceProcess:
        """Starts a service and returns when it listens.

        Args:
            configuration: What `serve --config` gets, in TOML; empty: no file.
        """
        directory = tempfile.TemporaryDirectory(prefix="bench-")
        path = Path(directory.name)
        target = f"unix:{path / 'sock'}"
        options = ["--address", target, "--state-dir", str(path / "state"), "--log-level", "warning"]
        if configuration:
            (path / "service.toml").write_text(configuration)
            options += ["--config", str(path / "service.toml")]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agentic_isolation_service", "serve", *options, stdout=asyncio.subprocess.PIPE
        )
        service = cls(process, target, directory)
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), _START_TIMEOUT)
            if not line:
                raise RuntimeError(f"the service ended with {await process.wait()} before it listened")
        except BaseException:
            await service.stop()
            raise
        return service

    async def stop(self) -> None:
        """Ends it; may be called twice."""
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
        self._directory.cleanup()
