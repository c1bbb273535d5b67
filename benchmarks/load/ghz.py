"""ghz, a load generator for gRPC that knows nothing of this project (github.com/bojand/ghz)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Sequence

from benchmarks.load.asks import SERVICE, Ask
from benchmarks.load.taken import NotTaken, Taken
from benchmarks.worker_process import CHECKOUT

PROGRAM = CHECKOUT / "build" / "load" / "bin" / "ghz"
_CONTRACT = CHECKOUT / "proto" / "agentic_isolation" / "v1" / "workspace.proto"
_MOST_CONNECTIONS = 4
_PATIENCE = 60.0
"""Seconds beyond the run's own."""


def version() -> str:
    """Returns ghz's version; empty where there is none."""
    try:
        told = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (told.stdout + told.stderr).strip()


async def run(ask: Ask, target: str, workspace_ids: Sequence[str], *, in_flight: int, seconds: float) -> Taken:
    """Has ghz ask for so many seconds.

    Args:
        ask: What it asks.
        target: Of whom, `host:port`.
        workspace_ids: The workspaces that it asks about, in turn.
        in_flight: Calls at a time.
        seconds: How long; what is under way then comes to its end.

    Raises:
        NotTaken: It did not run.
    """
    command = [
        *(str(PROGRAM), "--insecure", "--proto", str(_CONTRACT), "--import-paths", str(CHECKOUT / "proto")),
        *("--call", f"{SERVICE}/{ask.method}", "--data", ask.data(workspace_ids)),
        *("--concurrency", str(in_flight), "--connections", str(min(in_flight, _MOST_CONNECTIONS))),
        *("--duration", f"{seconds}s", "--duration-stop", "wait", "--format", "json", target),
    ]
    output = await _output(command, seconds + _PATIENCE)
    try:
        return taken_of(output)
    except (ValueError, KeyError) as error:
        raise NotTaken(f"ghz gave no report: {output[:300]!r}") from error


def taken_of(report: bytes) -> Taken:
    """Returns the figures of ghz's report.

    Raises:
        NotTaken: No call has succeeded.
        ValueError: It is no report.
        KeyError: The same.
    """
    told = json.loads(report)
    succeeded = int(told["statusCodeDistribution"].get("OK", 0))
    count = int(told["count"])
    if not succeeded:
        raise NotTaken(f"every call failed: {told['errorDistribution']}")
    latencies = {int(part["percentage"]): part["latency"] / 1e6 for part in told["latencyDistribution"]}
    return Taken(succeeded / (told["total"] / 1e9), latencies[50], latencies[99], count, count - succeeded)


async def _output(command: Sequence[str], within: float) -> bytes:
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except FileNotFoundError:
        raise NotTaken(f"there is no {command[0]}: `make load` builds it") from None
    try:
        output, _ = await asyncio.wait_for(process.communicate(), within)
    except TimeoutError:
        raise NotTaken(f"ghz did not end within {within:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            if process.returncode is None:
                process.kill()
        await process.wait()
    return output
