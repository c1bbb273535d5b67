"""The command line, `agentic-isolation`. Each command's module is loaded when it is used."""

from __future__ import annotations

import importlib
import sys

import click

from agentic_isolation._version import __version__
from agentic_isolation.errors import IsolationError

_COMMANDS = {
    "serve": ("agentic_isolation_service.cli.serve", "serve"),
    "run": ("agentic_isolation_service.cli.run", "run"),
    "exec": ("agentic_isolation_service.cli.run", "execute"),
    "ls": ("agentic_isolation_service.cli.workspaces", "list_workspaces"),
    "rm": ("agentic_isolation_service.cli.workspaces", "remove"),
    "info": ("agentic_isolation_service.cli.workspaces", "info"),
    "shell": ("agentic_isolation_service.cli.shell", "shell"),
    "cp": ("agentic_isolation_service.cli.copying", "copy"),
    "top": ("agentic_isolation_service.cli.top", "top"),
    "ps": ("agentic_isolation_service.cli.processes", "list_processes"),
    "logs": ("agentic_isolation_service.cli.processes", "show_output"),
    "completion": ("agentic_isolation_service.cli.completion", "completion"),
    "doctor": ("agentic_isolation_service.cli.doctor", "doctor"),
}
FAILED = 125
"""Exit code when this program, not the command it runs, failed: as `docker run`."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agentic-isolation")
def _cli() -> None:
    """Hardened workspaces for AI agents."""


def main() -> None:
    """Runs the command line and exits."""
    try:
        _cli(prog_name="agentic-isolation")
    except (IsolationError, OSError) as error:
        click.echo(f"agentic-isolation: {error}", err=True)
        sys.exit(FAILED)
