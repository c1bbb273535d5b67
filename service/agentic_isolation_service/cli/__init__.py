"""The command line, `agentic-isolation`. Each command's module is loaded when it is used."""

from __future__ import annotations

import importlib
import os
import signal
import sys

import click
from click.shell_completion import CompletionItem

from agentic_isolation._version import __version__
from agentic_isolation.errors import IsolationError
from agentic_isolation_service.cli.escaping import escaped

_PACKAGE = "agentic_isolation_service.cli"
_COMMANDS = {
    "serve": ("serve", "serve", "Run the service."),
    "run": ("run", "run", "Make a workspace, run COMMAND in it, and destroy it."),
    "exec": ("run", "execute", "Run COMMAND in a workspace that is there."),
    "ls": ("workspaces", "list_workspaces", "List a service's workspaces."),
    "rm": ("workspaces", "remove", "Kill everything in workspaces and remove them."),
    "info": ("workspaces", "info", "Describe a service or a workspace, and its isolation."),
    "health": ("health", "health", "Ask a service whether it takes calls, for probes."),
    "shell": ("shell", "shell", "Work in a workspace, in this terminal."),
    "cp": ("copying", "copy", "Copy files between this machine and a workspace."),
    "top": ("top", "top", "Watch a service's workspaces and their processes."),
    "ps": ("processes", "list_processes", "List the processes of a workspace."),
    "logs": ("processes", "show_output", "Show what a process has printed."),
    "completion": ("completion", "completion", "Print what makes a shell complete this program's words."),
    "token": ("token", "token", "Make a token for callers of a service."),
    "audit": ("audit", "audit", "Verify an audit log."),
    "doctor": ("doctor", "doctor", "Check the installation, and attack workspaces from inside."),
}
"""The module and the name of each command, and its line in the list: that list loads none of them."""
FAILED = 125
"""Exit code when this program, not the command it runs, failed: as `docker run`."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Runs a command. Where nobody reads its output any more the exit code is SIGPIPE's, as other programs have it.

        click's own would be 1, which may be that of a command.
        """
        try:
            result: object = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
            sys.exit(128 + signal.SIGPIPE)
        return result

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (*_, words) in _COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        commands = [
            CompletionItem(name, help=words) for name, (*_, words) in _COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agentic-isolation")
def _cli() -> None:
    """Hardened workspaces for AI agents."""


def main() -> None:
    """Runs the command line and exits."""
    _end_by_interrupts()
    _open_standard_streams()
    # Of itself gRPC's core waits for standard error, and has a line for each of many things that any stranger may send.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        _cli(prog_name="agentic-isolation")
    except (IsolationError, OSError) as error:
        # A part of the words may be a workload's: the names of its files, what it has a guest say.
        click.echo(f"agentic-isolation: {escaped(_told(error))}", err=True)
        sys.exit(FAILED)


def _told(error: IsolationError | OSError) -> str:
    """Returns what an error says; where a file cannot be used, as other programs say it, without Python's own form."""
    if isinstance(error, IsolationError) or not isinstance(error.filename, str) or error.filename2 is not None:
        return str(error)
    return f"{error.filename}: {error.strerror}"


def _end_by_interrupts() -> None:
    """Has SIGINT end this program as any other, as long as nothing is there that has to be cleaned up.

    Python's own KeyboardInterrupt would make an exit code of 1 of it, which may be that of a command.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _discard_output() -> None:
    """Opens /dev/null for what is still in the buffers, which Python writes when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)


def _open_standard_streams() -> None:
    """Opens /dev/null for each standard stream that is closed, before another file gets its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  it is for the whole program
