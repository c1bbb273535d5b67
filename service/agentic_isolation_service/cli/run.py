"""`run` and `exec`: a command in a workspace, its output live."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import click

from agentic_isolation import AgenticWorkspace, Exited, Output, OutputSource
from agentic_isolation_service.cli import terminal
from agentic_isolation_service.cli.completion import complete_workspace
from agentic_isolation_service.cli.options import optional_target, parse_pairs, required_target, run_to_end
from agentic_isolation_service.cli.pulling import workspace_of_image
from agentic_isolation_service.core.validation import MAX_STDIN

RETRY_TIMEOUT = 5.0
"""Seconds for which the service may be away: enough for a new start, and little where there is none."""
_OPTIONS_FIRST = {"allow_interspersed_args": False}
"""Whatever comes after the first word that is no option is the command's."""


@click.command(context_settings=_OPTIONS_FIRST)
@optional_target
@click.option("--provider", default="docker", show_default=True, help="docker, or local: a directory, not isolated.")
@click.option("--image", help="Image for the docker provider.")
@click.option("--workdir", default="/workspace", show_default=True, help="Directory that the command starts in.")
@click.option("--env", "-e", multiple=True, metavar="NAME=VALUE", help="Variable for the command; repeatable.")
@click.option("--file", "-f", "files", multiple=True, metavar="FILE[:PATH]", help="File to put in; repeatable.")
@click.option("--timeout", type=float, help="Seconds until the command's process tree is killed.")
@click.option("--stdin", "with_stdin", is_flag=True, help="Pass standard input on, read to its end (at most 1 MiB).")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    target: str | None,
    provider: str,
    image: str | None,
    workdir: str,
    env: tuple[str, ...],
    files: tuple[str, ...],
    timeout: float | None,
    with_stdin: bool,
    command: tuple[str, ...],
) -> None:
    """Make a workspace, run COMMAND in it, and destroy it.

    The command's output goes to standard output and standard error as it is printed; its exit code is this program's
    (124: timeout, 128+n: signal n, 125: this program failed or there is no such command, 2: wrong usage).
    """
    environment = parse_pairs("--env", env)
    uploads = [_upload(file) for file in files]

    async def program() -> int:
        async with workspace_of_image(
            provider, image, target or "", RETRY_TIMEOUT, working_dir=workdir, environment=environment
        ) as workspace:
            for path, content in uploads:
                await workspace.write_file(path, content)
            return await _follow(workspace, command, timeout, with_stdin)

    sys.exit(run_to_end(program()))


@click.command("exec", context_settings=_OPTIONS_FIRST)
@required_target
@click.option("--workdir", help="Directory that the command starts in.")
@click.option("--env", "-e", multiple=True, metavar="NAME=VALUE", help="Variable for the command; repeatable.")
@click.option("--timeout", type=float, help="Seconds until the command's process tree is killed.")
@click.option("--stdin", "with_stdin", is_flag=True, help="Pass standard input on, read to its end (at most 1 MiB).")
@click.argument("workspace_id", shell_complete=complete_workspace)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(
    target: str,
    workdir: str | None,
    env: tuple[str, ...],
    timeout: float | None,
    with_stdin: bool,
    workspace_id: str,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND in a workspace that is there; otherwise like `run`."""
    environment = parse_pairs("--env", env)
    if command[0] == "--":
        # It comes after the workspace, where click no longer takes it for itself.
        command = command[1:]

    async def program() -> int:
        async with AgenticWorkspace.connect(workspace_id, target=target, retry_timeout=RETRY_TIMEOUT) as workspace:
            return await _follow(workspace, command, timeout, with_stdin, cwd=workdir, env=environment)

    sys.exit(run_to_end(program()))


async def _follow(
    workspace: AgenticWorkspace,
    command: Sequence[str],
    timeout: float | None,
    with_stdin: bool,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
) -> int:
    """Runs a command, passes its output on, and returns its exit code."""
    stdin = await terminal.read_to_end(sys.stdin.fileno(), MAX_STDIN) if with_stdin else None
    outputs = {OutputSource.STDOUT: sys.stdout.buffer, OutputSource.STDERR: sys.stderr.buffer}
    async with workspace.stream(command, timeout=timeout, cwd=cwd, env=env, stdin=stdin) as stream:
        async for event in stream.events():
            if isinstance(event, Output):
                outputs[event.source].write(event.data)
                outputs[event.source].flush()
            elif isinstance(event, Exited):
                return event.termination.returncode
    raise AssertionError("a stream ends with Exited")


def _upload(argument: str) -> tuple[str, bytes]:
    """Returns where in the workspace a file goes, and its content, from FILE or FILE:PATH."""
    source, _, path = argument.partition(":")
    try:
        content = Path(source).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"cannot read {source}: {error.strerror}", param_hint="--file") from error
    return path or PurePosixPath(source).name, content
