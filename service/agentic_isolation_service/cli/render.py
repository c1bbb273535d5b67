"""Tables for people and JSON for programs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import re
import shlex
import sys
from collections.abc import Iterable

import click
from rich.console import Console
from rich.table import Table

from agentic_isolation import Isolation, PoolInfo, ProcessInfo, ServerInfo, Termination, TerminationCause, WorkspaceInfo

_WIDEST = 16 << 10
"""Characters of a cell that a program is given; --json has all of it."""
_NOT_ASCII = re.compile(r"[^\n -~]")


def as_dict(value: object) -> object:
    """Returns a model as plain JSON values: times in ISO 8601, enums by their value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): as_dict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_dict(item) for item in value]
    return value


def print_json(value: object) -> None:
    """Prints plain values as JSON, without anything that a terminal obeys: JSON itself escapes a part of that only."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo(_NOT_ASCII.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text))


def print_workspaces(workspaces: list[WorkspaceInfo]) -> None:
    """Prints a table of workspaces."""
    tenants = any(workspace.tenant for workspace in workspaces)
    named = ("TENANT",) if tenants else ()
    table = new_table("WORKSPACE", *named, "PROVIDER", "STATE", "RUNTIME", "AGE", "LEASE", "LABELS")
    now = dt.datetime.now(dt.UTC)
    for workspace in workspaces:
        table.add_row(
            workspace.id,
            *([workspace.tenant or "–"] if tenants else []),
            workspace.provider,
            workspace.state.value,
            workspace.isolation.runtime,
            span(now - workspace.created_at),
            span(workspace.lease_expires_at - now),
            printable(" ".join(f"{name}={value}" for name, value in sorted(workspace.labels.items()))),
        )
    print_table(table)


def print_processes(processes: list[ProcessInfo]) -> None:
    """Prints a table of processes."""
    table = new_table("PROCESS", "STATE", "STARTED", "CPU", "MEMORY", "PROCS", "OUTPUT", "TERMINAL", "COMMAND")
    now = dt.datetime.now(dt.UTC)
    for process in processes:
        table.add_row(
            process.id,
            process_state(process.termination),
            f"{span(now - process.started_at)} ago",
            f"{process.cpu_seconds:.2f} s",
            size(process.memory_bytes),
            str(process.processes),
            size(process.output_bytes),
            "yes" if process.terminal else "no",
            command_line(process),
        )
    print_table(table)


def process_state(termination: Termination | None) -> str:
    """Returns how a process is in a word or three."""
    if termination is None:
        return "running"
    if termination.cause is TerminationCause.EXITED:
        return f"exited {termination.returncode}"
    if termination.cause is TerminationCause.SIGNALED:
        return f"signal {termination.returncode - 128}"
    return termination.cause.name.lower().replace("_", " ")


def command_line(process: ProcessInfo) -> str:
    """Returns a process's command on one line, as it would be typed, without anything that a terminal obeys."""
    return printable(shlex.join(process.args))


def printable(text: str) -> str:
    """Returns a text with a dot for whatever a terminal might obey."""
    return "".join(character if character.isprintable() else "·" for character in text)


def size(count: int) -> str:
    """Returns a number of bytes in the unit that suits it."""
    for exponent, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << exponent:
            return f"{count / (1 << exponent):.1f} {unit}"
    return f"{count} B"


def print_workspace(workspace: WorkspaceInfo) -> None:
    """Prints one workspace, field by field, with the isolation that it has."""
    rows = [
        ("workspace", workspace.id),
        *([("tenant", workspace.tenant)] if workspace.tenant else []),
        ("provider", workspace.provider),
        ("image", workspace.image or "–"),
        ("state", workspace.state.value),
        ("working dir", workspace.working_dir),
        ("host path", workspace.host_path or "–"),
        ("created", workspace.created_at.isoformat(timespec="seconds")),
        ("lease ends", workspace.lease_expires_at.isoformat(timespec="seconds")),
        *((f"label {name}", value) for name, value in sorted(workspace.labels.items())),
        *_isolation_rows(workspace.isolation),
    ]
    _print_rows(rows)


def print_server(server: ServerInfo) -> None:
    """Prints a service's description and the isolation that each of its providers gives."""
    _print_rows(
        [
            ("version", server.version),
            *([("replica", server.replica)] if server.replica else []),
            ("workspaces", f"at most {server.workspaces_limit}"),
            ("lease", f"at most {span(dt.timedelta(seconds=server.lease_limit))}"),
        ]
    )
    for provider in server.providers:
        click.echo(f"\n{provider.name}: " + ("available" if provider.available else provider.unavailable_reason))
        if provider.isolation is not None:
            _print_rows(_isolation_rows(provider.isolation))
    for pool in server.pools:
        click.echo(f"\npool {pool.name}: {pool.ready} of {pool.wanted} ready" + (", refilling" * pool.refilling))
        _print_rows(_pool_rows(pool))


def _pool_rows(pool: PoolInfo) -> list[tuple[str, str]]:
    rows = [
        ("provider", pool.provider),
        ("image", pool.image or "–"),
        ("size", f"{pool.min} to {pool.max}"),
        ("hits", str(pool.hits)),
        ("misses", str(pool.misses)),
    ]
    return [*rows, ("last error", pool.last_error)] if pool.last_error else rows


def _isolation_rows(isolation: Isolation) -> list[tuple[str, str]]:
    known = {
        "runtime": isolation.runtime,
        "user": isolation.user or None,
        "capabilities": " ".join(isolation.capabilities) or "none" if isolation.user else None,
        "no_new_privs": _yes_no(isolation.no_new_privileges),
        "seccomp": isolation.seccomp or None,
        "read-only root": _yes_no(isolation.read_only_root),
        "network": None if isolation.network is None else isolation.network.value,
        "cpu": None if isolation.cpu_millis is None else f"{isolation.cpu_millis / 1000:g}",
        "memory": None if isolation.memory_bytes is None else f"{isolation.memory_bytes >> 20} MiB",
        "disk": None if isolation.disk_bytes is None else f"{isolation.disk_bytes >> 20} MiB",
        "open files": None if isolation.open_files is None else str(isolation.open_files),
        "pids": None if isolation.pids_limit is None else str(isolation.pids_limit),
        "kernel": isolation.kernel or None,
    }
    return [(name, value) for name, value in known.items() if value is not None]


def _yes_no(flag: bool | None) -> str | None:
    return None if flag is None else "yes" if flag else "no"


def span(time: dt.timedelta) -> str:
    """Returns a time in the unit that suits it."""
    seconds = max(0, round(time.total_seconds()))
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def new_table(first: str, *columns: str) -> Table:
    """Returns a table with these headings and no frame, whose first column, for ids, is never folded."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True, overflow="ignore")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print_rows(rows: Iterable[tuple[str, str]]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, printable(value))
    print_table(table)


def print_table(table: Table) -> None:
    """Prints a table: as wide as the terminal, or for a program that reads it, a line for each row."""
    width = None
    if not sys.stdout.isatty():
        # Labels and commands are others' words: the rest of one on a line of its own would pass for another row.
        width = _WIDEST * len(table.columns)
        for column in table.columns:
            column.no_wrap, column.overflow, column.max_width = True, "ellipsis", _WIDEST
    # Some of the words are callers', and no markup.
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
