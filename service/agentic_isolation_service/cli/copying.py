"""`cp`: files and directories between this machine and a workspace."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import click

from agentic_isolation import AgenticWorkspace, TransferProgress, TransferSummary
from agentic_isolation_service.cli import terminal
from agentic_isolation_service.cli.completion import complete_path
from agentic_isolation_service.cli.options import required_target, run_to_end
from agentic_isolation_service.cli.run import RETRY_TIMEOUT

_STANDARD = "-"
"""Standard input or standard output in place of a local file."""


@dataclass(frozen=True, slots=True)
class _Place:
    """One end of a copy."""

    workspace_id: str | None
    """None: on this machine."""
    path: str


@click.command("cp")
@required_target
@click.option(
    "--ignore", multiple=True, metavar="PATTERN", help="Leave out of a directory, as .gitignore does; repeatable."
)
@click.option(
    "--ignore-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of such patterns, such as .gitignore.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress and no summary.")
@click.argument("source", shell_complete=complete_path)
@click.argument("destination", shell_complete=complete_path)
def copy(
    target: str, ignore: tuple[str, ...], ignore_file: Path | None, quiet: bool, source: str, destination: str
) -> None:
    """Copy LOCAL to WORKSPACE:PATH, or WORKSPACE:PATH to LOCAL; what lies in a directory goes into a directory.

    A destination that is a directory, or ends in "/", takes a file by its own name. `-` is standard input or standard
    output. Paths in a workspace start from its working directory. A local name with a colon is written ./NAME.
    """
    is_file = not os.path.isdir(source)
    patterns = [*ignore, *(_lines_of(ignore_file) if ignore_file else ())]
    begin, end = _parse(source), _parse(destination)
    if (begin.workspace_id is None) == (end.workspace_id is None):
        raise click.UsageError("one of the two has to be WORKSPACE:PATH, and the other one a local path")
    workspace_id = begin.workspace_id or end.workspace_id or ""

    async def program() -> TransferSummary | None:
        async with AgenticWorkspace.connect(workspace_id, target=target, retry_timeout=RETRY_TIMEOUT) as workspace:
            with _shown(quiet) as progress:
                if end.workspace_id is not None:
                    return await _put(workspace, begin.path, end.path, is_file, patterns, progress)
                return await _get(workspace, begin.path, end.path, patterns, progress)

    summary = run_to_end(program())
    if summary is not None and not quiet and sys.stderr.isatty():
        from agentic_isolation_service.cli.render import size

        skipped = f", {summary.skipped} left out" if summary.skipped else ""
        click.echo(f"{summary.files} files, {size(summary.content_bytes)}{skipped}", err=True)


def _lines_of(ignore_file: Path) -> list[str]:
    try:
        return ignore_file.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{ignore_file} is no text in UTF-8: {error}", param_hint="--ignore-file") from error


def _parse(argument: str) -> _Place:
    workspace_id, colon, path = argument.partition(":")
    if not colon or "/" in workspace_id or not workspace_id:
        return _Place(None, argument)
    return _Place(workspace_id, path or ".")


async def _put(
    workspace: AgenticWorkspace,
    local: str,
    path: str,
    is_file: bool,
    patterns: list[str],
    progress: Callable[[TransferProgress], object] | None,
) -> TransferSummary | None:
    if local == _STANDARD:
        await workspace.write_file(path, await terminal.read_to_end(sys.stdin.fileno()))
        return None
    if is_file and await _is_directory(workspace, path):
        path = str(PurePosixPath(path) / Path(local).name)
    return await workspace.upload(local, path, ignore=patterns, progress=progress)


async def _get(
    workspace: AgenticWorkspace,
    path: str,
    local: str,
    patterns: list[str],
    progress: Callable[[TransferProgress], object] | None,
) -> TransferSummary | None:
    if local == _STANDARD:
        sys.stdout.buffer.write(await workspace.read_file(path))
        sys.stdout.buffer.flush()
        return None
    return await workspace.download(path, local, ignore=patterns, progress=progress)


async def _is_directory(workspace: AgenticWorkspace, path: str) -> bool:
    from agentic_isolation import FileType, WorkspaceFileNotFoundError

    try:
        return (await workspace.files.stat(path)).type is FileType.DIRECTORY
    except WorkspaceFileNotFoundError:
        return False


@contextlib.contextmanager
def _shown(quiet: bool) -> Iterator[Callable[[TransferProgress], object] | None]:
    """Yields what shows progress on standard error; None where nobody sees it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.fields[path]}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("copy", total=None, path="")

        def show(done: TransferProgress) -> None:
            # A workspace's file names may hold what a terminal obeys.
            name = "".join(character for character in PurePosixPath(done.path).name if character.isprintable())
            progress.update(task, completed=done.done_bytes, total=done.total_bytes, path=name[-30:])

        yield show
