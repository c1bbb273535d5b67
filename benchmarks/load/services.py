"""Services to be loaded: two replicas on loopback, each with its state, and workspaces on them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentic_isolation import AgenticWorkspace, SecurityConfig
from benchmarks.worker_process import CHECKOUT

_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 60.0
_LEASE = 120.0
"""Seconds that a workspace outlives a run that was killed."""
REPLICAS = ("one", "two")


@dataclass(frozen=True, slots=True)
class Service:
    """A service that runs."""

    replica: str
    target: str
    pid: int


@contextlib.asynccontextmanager
async def services(log: Path, *, named: bool) -> AsyncIterator[Sequence[Service]]:
    """Starts the replicas and yields them, and stops them on the way out.

    Args:
        log: File for what they say.
        named: Whether the ids of their workspaces have their names, for a proxy to find them by.
    """
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_service(replica, log, named=named)) for replica in REPLICAS]


@contextlib.asynccontextmanager
async def program(
    command: Sequence[str], log: Path, *, cwd: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs a program that goes on until it is told to end, which it is on the way out."""
    paths = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "service")])
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=errors, cwd=cwd, env={**os.environ, "PYTHONPATH": paths}
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.communicate(), _STOP_TIMEOUT)
        except TimeoutError:
            process.kill()
            await process.communicate()


@contextlib.asynccontextmanager
async def _service(replica: str, log: Path, *, named: bool) -> AsyncIterator[Service]:
    with tempfile.TemporaryDirectory(prefix="load-") as directory:
        options = ["--address", "127.0.0.1:0", "--state-dir", directory, "--log-level", "warning"]
        options += ["--replica", replica] if named else []
        command = [sys.executable, "-m", "agentic_isolation_service", "serve", *options]
        async with program(command, log) as process:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), _START_TIMEOUT)
            if not line:
                raise RuntimeError(f"a service ended with {await process.wait()} before it listened; see {log}")
            yield Service(replica, line.decode().strip().removeprefix("listening on "), process.pid)


@contextlib.asynccontextmanager
async def workspaces(target: str, provider: str, count: int) -> AsyncIterator[Sequence[str]]:
    """Makes workspaces and yields their ids; they are gone on the way out.

    Args:
        target: The service.
        provider: "local", or "docker": under runc.
        count: How many.
    """
    security = SecurityConfig(use_gvisor=False) if provider == "docker" else None
    async with contextlib.AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(
                AgenticWorkspace.create(provider=provider, security=security, lease=_LEASE, target=target)
            )
            for _ in range(count)
        ]
        yield [workspace.id for workspace in made]
