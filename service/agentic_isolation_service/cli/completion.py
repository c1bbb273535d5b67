"""`completion`, and what the shells ask for: ids of workspaces and processes, and paths in workspaces."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Coroutine

import click
from click.shell_completion import CompletionItem, get_completion_class

_PROGRAM = "agentic-isolation"
_VARIABLE = "_AGENTIC_ISOLATION_COMPLETE"
_TIMEOUT = 2.0
"""Seconds that a key may take."""
_MOST_WORKSPACES = 200
_DEFAULT_TARGET = "127.0.0.1:50051"
_PLAIN = re.compile(r"[\w.,:/@%+=-]+")
"""What no shell acts on."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete this program's commands, options, workspaces, processes and paths.

    For bash: eval "$(agentic-isolation completion bash)" in ~/.bashrc; for zsh the same in ~/.zshrc; for fish:
    agentic-isolation completion fish > ~/.config/fish/completions/agentic-isolation.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"click knows no {shell}")
    click.echo(kind(context.find_root().command, {}, _PROGRAM, _VARIABLE).source())


def complete_workspace(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Returns the workspaces whose ids begin as typed."""
    if context.params.get("provider"):
        return []  # the words are a command
    return _asked(context, lambda target: _workspaces(target, incomplete))


def complete_process(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Returns the processes of the workspace that was typed before."""
    words = context.params.get("words") or ()
    workspace_id = context.params.get("workspace_id") or (words[0] if words else "")
    if not workspace_id:
        return []
    return _asked(context, lambda target: _processes(target, workspace_id, incomplete))


def complete_path(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Returns workspaces with their colon, paths after one, and leaves local files to the shell."""
    workspace_id, colon, path = incomplete.partition(":")
    if colon and "/" not in workspace_id:
        return _asked(context, lambda target: _paths(target, workspace_id, path))
    found = _asked(context, lambda target: _workspaces(target, incomplete))
    local = [CompletionItem(incomplete, type="file")]
    return [CompletionItem(f"{item.value}:", help=item.help) for item in found] if found and incomplete else local


def _asked(
    context: click.Context, ask: Callable[[str], Coroutine[object, object, list[CompletionItem]]]
) -> list[CompletionItem]:
    """Returns what the service answers; nothing where it does not, because whoever types must not be disturbed."""
    from agentic_isolation._target import TARGET_VARIABLE

    target = context.params.get("target") or os.environ.get(TARGET_VARIABLE) or _DEFAULT_TARGET

    async def bounded() -> list[CompletionItem]:
        async with asyncio.timeout(_TIMEOUT):
            return await ask(target)

    with contextlib.suppress(Exception):  # silence is the interface here
        return asyncio.run(bounded())
    return []


async def _workspaces(target: str, incomplete: str) -> list[CompletionItem]:
    from agentic_isolation.service import ServiceClient

    found: list[CompletionItem] = []
    async with ServiceClient(target, retry_timeout=0) as service:
        async for workspace in service.list_workspaces():
            if workspace.id.startswith(incomplete):
                found.append(CompletionItem(workspace.id, help=workspace.image or workspace.provider))
            if len(found) >= _MOST_WORKSPACES:
                break
    return found


async def _processes(target: str, workspace_id: str, incomplete: str) -> list[CompletionItem]:
    from agentic_isolation import AgenticWorkspace
    from agentic_isolation_service.cli.render import command_line

    async with AgenticWorkspace.connect(workspace_id, target=target, retry_timeout=0) as workspace:
        return [
            CompletionItem(process.id, help=command_line(process))
            for process in await workspace.processes()
            if process.id.startswith(incomplete)
        ]


async def _paths(target: str, workspace_id: str, path: str) -> list[CompletionItem]:
    from agentic_isolation import AgenticWorkspace, FileType

    directory, slash, name = path.rpartition("/")
    async with AgenticWorkspace.connect(workspace_id, target=target, retry_timeout=0) as workspace:
        entries = await workspace.files.list(f"{directory}{slash}" or ".")
    prefix = f"{workspace_id}:{directory}{slash}"
    return [
        CompletionItem(f"{prefix}{entry.name}" + ("/" if entry.type is FileType.DIRECTORY else ""))
        for entry in entries
        if entry.name.startswith(name) and _can_be_typed(entry.name)
    ]


def _can_be_typed(name: str) -> bool:
    """Returns whether a shell may put a file's name, which is a workload's word, into the line that is being typed.

    A completion is a line, and bash, unlike zsh and fish, quotes nothing of what it puts there.
    """
    in_bash = os.environ.get(_VARIABLE, "").startswith("bash")
    return name.isprintable() and (not in_bash or _PLAIN.fullmatch(name) is not None)
