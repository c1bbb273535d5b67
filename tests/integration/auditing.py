"""A service that writes an audit log, and what tests read of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.integration.cli import run

Entry = dict[str, Any]


def entries(path: Path, event: str | None = None) -> list[Entry]:
    """Returns the whole entries of a log, or those of an event."""
    lines = path.read_bytes().splitlines(keepends=True)
    found = [json.loads(line) for line in lines if line.endswith(b"\n") and line.startswith(b"{")]
    return [entry for entry in found if event in (None, entry["event"])]


def audit(*arguments: str | Path) -> tuple[int, str]:
    """Runs `agentic-isolation audit` and returns its exit code and what it has said."""
    ran = run("audit", *map(str, arguments))
    assert "Traceback" not in ran.stderr
    return ran.returncode, ran.stdout + ran.stderr


def verified(*paths: Path) -> None:
    """Fails where a log is not as it was written."""
    code, said = audit("verify", *paths)
    assert code == 0, said
