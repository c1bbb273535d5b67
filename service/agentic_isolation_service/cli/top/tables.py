"""The rows of workspaces and processes as texts: the same in the view and in `top --once`."""

from __future__ import annotations

import datetime as dt

from agentic_isolation_service.cli import render
from agentic_isolation_service.cli.top.watching import ProcessRow, WorkspaceRow

WORKSPACE_COLUMNS = ("WORKSPACE", "PROVIDER", "IMAGE", "RUNTIME", "STATE", "CPU", "MEMORY", "PIDS", "LEASE", "LABELS")
PROCESS_COLUMNS = ("PROCESS", "STATE", "STARTED", "CPU", "TIME", "MEMORY", "PROCS", "OUTPUT", "COMMAND")
_UNKNOWN = "–"


def workspace_cells(row: WorkspaceRow) -> tuple[str, ...]:
    """Returns the texts of a workspace."""
    info = row.info
    return (
        info.id,
        info.provider,
        info.image or _UNKNOWN,
        info.isolation.runtime,
        info.state.name.lower(),
        _percent(row.cpu_percent),
        _UNKNOWN if row.memory_bytes is None else render.size(row.memory_bytes),
        _UNKNOWN if row.pids is None else str(row.pids),
        render.span(info.lease_expires_at - dt.datetime.now(dt.UTC)),
        render.printable(" ".join(f"{name}={value}" for name, value in sorted(info.labels.items()))),
    )


def process_cells(row: ProcessRow) -> tuple[str, ...]:
    """Returns the texts of a process."""
    info = row.info
    return (
        info.id,
        render.process_state(info.termination),
        f"{render.span(dt.datetime.now(dt.UTC) - info.started_at)} ago",
        _percent(row.cpu_percent) if info.running else _UNKNOWN,
        f"{info.cpu_seconds:.2f} s",
        render.size(info.memory_bytes),
        str(info.processes),
        render.size(info.output_bytes),
        render.command_line(info),
    )


def _percent(share: float | None) -> str:
    return _UNKNOWN if share is None else f"{share:.1f}%"
