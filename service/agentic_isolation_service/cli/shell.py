"""`shell`: a process in a workspace as if it ran in the terminal that this was started in."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

import click

from agentic_isolation import AgenticWorkspace, InputTakenError, InvalidArgumentError, Process
from agentic_isolation._cleanup import finish
from agentic_isolation._retry import DEFAULT_RETRY_TIMEOUT, give_up
from agentic_isolation._target import TARGET_VARIABLE
from agentic_isolation_service.cli import terminal
from agentic_isolation_service.cli.completion import complete_process, complete_workspace
from agentic_isolation_service.cli.detaching import DEFAULT_DETACH_KEYS, parse_keys
from agentic_isolation_service.cli.interaction import Interaction
from agentic_isolation_service.cli.options import TARGET_HELP, parse_pairs, run_to_end
from agentic_isolation_service.cli.processes import find_process
from agentic_isolation_service.cli.pulling import workspace_of_image
from agentic_isolation_service.config import DEFAULT_ADDRESS

_SHELL = ("/bin/sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash -l; else exec sh -l; fi")
_REPLAYED_BYTES = 16 << 10
"""Of the output that came before, shown when a process is attached to."""
_PASSED_ON = {"TERM": "xterm", "COLORTERM": ""}
"""Variables that a terminal is described by, and what they are where we have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    command: Sequence[str]
    process_id: str | None
    take_input: bool
    detachable: bool
    detach_keys: bytes
    workdir: str | None
    environment: dict[str, str]


@click.command()
@click.option(
    "--target",
    envvar=TARGET_VARIABLE,
    help=f"{TARGET_HELP} Without it, WORKSPACE is looked for at {DEFAULT_ADDRESS}, and for --provider a service is "
    "embedded in this program.",
)
@click.option("--provider", help="Make a workspace, by docker or local, and destroy it at the end.")
@click.option("--image", help="Image of the workspace that is made, for --provider docker.")
@click.option(
    "--process", "process_id", metavar="PROCESS", shell_complete=complete_process, help="Attach to one that runs."
)
@click.option("--take-input", is_flag=True, help="With --process: type into it even if somebody else does.")
@click.option("--detachable", "-d", is_flag=True, help="Let the detach keys leave the process running.")
@click.option(
    "--detach-keys", default=DEFAULT_DETACH_KEYS, show_default=True, metavar="KEYS", help="Keys that leave it running."
)
@click.option("--workdir", help="Directory that the command starts in.")
@click.option("--env", "-e", multiple=True, metavar="NAME=VALUE", help="Variable for the command; repeatable.")
@click.argument("words", nargs=-1, metavar="[WORKSPACE] [-- COMMAND…]", shell_complete=complete_workspace)
def shell(
    target: str | None,
    provider: str | None,
    image: str | None,
    process_id: str | None,
    take_input: bool,
    detachable: bool,
    detach_keys: str,
    workdir: str | None,
    env: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    """Work in a workspace: its bash, else its sh, or COMMAND, in this terminal.

    Every key goes to the process, and its exit code is this program's (125: this program failed). Without a terminal,
    standard input is passed on to its end, through plain pipes. A connection that breaks is made again.

    With --detachable, ctrl-p ctrl-q leaves the process running; `shell WORKSPACE --process PROCESS` goes on with it. A
    detachable process that prints faster than this terminal takes it loses output in place of being held back.
    """
    if provider is not None and (process_id or detachable):
        raise click.UsageError("a workspace of --provider ends with this program: no --process and no --detachable")
    if provider is None and image is not None:
        raise click.UsageError("--image needs --provider docker")
    if provider is None and not words:
        raise click.UsageError("name a workspace, or make one by --provider")
    options = _Options(
        command=words if provider else words[1:],
        process_id=process_id,
        take_input=take_input,
        detachable=detachable,
        detach_keys=parse_keys(detach_keys),
        workdir=workdir,
        environment=parse_pairs("--env", env),
    )
    if process_id and options.command:
        raise click.UsageError("use either --process or a command")

    async def program() -> int:
        if provider is not None:
            async with workspace_of_image(provider, image, target or "", DEFAULT_RETRY_TIMEOUT) as workspace:
                return await _run(workspace, options)
        async with AgenticWorkspace.connect(words[0], target=target or DEFAULT_ADDRESS) as workspace:
            return await _run(workspace, options)

    try:
        sys.exit(run_to_end(program()))
    except InputTakenError as error:
        raise InputTakenError("another attachment types into it; type all the same by --take-input") from error


async def _run(workspace: AgenticWorkspace, options: _Options) -> int:
    """Returns this program's exit code."""
    opened = _started(workspace, options) if options.process_id is None else _attached(workspace, options)
    async with opened as (process, interaction):
        termination = await interaction.run()
        if termination is not None:
            return termination.returncode
        await process.detach()
        click.echo(f"\nDetached; go on with: agentic-isolation shell {workspace.id} --process {process.id}", err=True)
        return 0


@contextlib.asynccontextmanager
async def _started(workspace: AgenticWorkspace, options: _Options) -> AsyncIterator[tuple[Process, Interaction]]:
    """Starts the command; when this is left it is killed, unless it was detached or has ended."""
    has_terminal = terminal.is_terminal(sys.stdin.fileno(), sys.stdout.fileno())
    described = {name: os.environ.get(name, fallback) for name, fallback in _PASSED_ON.items()} if has_terminal else {}
    process = await workspace.start(
        options.command or _SHELL,
        cwd=options.workdir,
        env={name: value for name, value in described.items() if value} | options.environment,
        terminal=terminal.terminal_size(sys.stdin.fileno()) if has_terminal else None,
        detached=options.detachable,
    )
    interaction = Interaction(
        process, has_terminal=has_terminal, detach_keys=options.detach_keys if options.detachable else b""
    )
    try:
        async with process:
            yield process, interaction
    except BaseException:
        if options.detachable:
            await finish(give_up(partial(workspace.signal, process.id, signal.SIGKILL, tree=True)))
        raise


@contextlib.asynccontextmanager
async def _attached(workspace: AgenticWorkspace, options: _Options) -> AsyncIterator[tuple[Process, Interaction]]:
    """Attaches to a process that runs, after the latest of what it has printed; leaves it running."""
    found = await find_process(workspace, options.process_id or "")
    here = terminal.is_terminal(sys.stdin.fileno(), sys.stdout.fileno())
    if found.terminal and not here:
        raise InvalidArgumentError(
            f"process {found.id} has a terminal, and neither standard input nor output of this program may be anything "
            f"else; read it with `agentic-isolation logs -f {workspace.id} {found.id}`"
        )
    process = await workspace.attach(
        found.id, offset=max(0, found.output_bytes - _REPLAYED_BYTES), take_input=options.take_input
    )
    async with process:
        if found.terminal:
            size = terminal.terminal_size(sys.stdin.fileno())
            # A size that differs makes full-screen programs draw everything anew.
            await process.resize(size.columns, max(1, size.rows - 1))
            await process.resize(size.columns, size.rows)
        detach_keys = options.detach_keys if found.terminal else b""
        yield process, Interaction(process, has_terminal=found.terminal, detach_keys=detach_keys)
