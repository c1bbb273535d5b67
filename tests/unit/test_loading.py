"""What each way to begin loads, and what it does not: that is how long it takes to start."""

from __future__ import annotations

import subprocess
import sys

import pytest

GRPC = {"grpc", "google"}
ENGINES = {"aiodocker", "aiohttp"}
TERMINALS = {"click", "rich", "textual"}
PATTERNS = {"pathspec", "re2"}
TELEMETRY = {"prometheus_client", "opentelemetry", "grpc_channelz"}
IDENTITIES = {"cryptography", "jwt"}
SERVICE = {"agentic_isolation_service", "sqlite3"}
CLIENT = SERVICE | ENGINES | TERMINALS | PATTERNS | TELEMETRY | {"tarfile"}

BEGINNINGS = {
    "the package": ("import agentic_isolation", CLIENT | GRPC | {"asyncio", "dataclasses"}),
    "an error": ("from agentic_isolation import InvalidArgumentError", CLIENT | GRPC | {"asyncio", "dataclasses"}),
    "a setting": ("from agentic_isolation import SecurityConfig", CLIENT | GRPC | {"asyncio"}),
    "the client": ("from agentic_isolation import AgenticWorkspace", CLIENT),
    "an embedded service": (
        "from agentic_isolation_service.app import open_embedded",
        ENGINES | TERMINALS | PATTERNS | TELEMETRY | IDENTITIES | {"tarfile"},
    ),
    "the service": (
        "from agentic_isolation_service.cli.serve import serve",
        ENGINES | PATTERNS | TELEMETRY | {"rich", "textual", "tarfile"},
    ),
    "the list of commands": (
        "from agentic_isolation_service.cli import _cli; _cli(['--help'], standalone_mode=False)",
        (CLIENT | GRPC) - {"agentic_isolation_service", "click"},
    ),
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_loads_only_what_it_needs(beginning: str) -> None:
    program, unneeded = BEGINNINGS[beginning]
    program += "; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "agentic_isolation" in loaded
    assert loaded & unneeded == set()
