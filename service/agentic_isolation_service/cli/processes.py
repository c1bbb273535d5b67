"""`ps` and `logs`: looking on at the processes of a workspace."""

from __future__ import annotations

import sys

import click

from agentic_isolation import (
    AgenticWorkspace,
    Exited,
    Gap,
    InvalidArgumentError,
    Output,
    OutputSource,
    ProcessInfo,
    ProcessNotFoundError,
)
from agentic_isolation_service.cli import render
from agentic_isolation_service.cli.completion import complete_process, complete_workspace
from agentic_isolation_service.cli.options import json_output, required_target, run_to_end
from agentic_isolation_service.cli.run import RETRY_TIMEOUT

_TAIL_BLOCK = 64 << 10
_MOST_TAIL = 512 << 10
"""Bytes: a process's log holds no more."""


@click.command("ps")
@required_target
@click.argument("workspace_id", shell_complete=complete_workspace)
@json_output
def list_processes(target: str, workspace_id: str, as_json: bool) -> None:
    """List the processes that were started in a workspace, oldest first, those that have ended with how they did."""

    async def program() -> list[ProcessInfo]:
        async with AgenticWorkspace.connect(workspace_id, target=target, retry_timeout=0) as workspace:
            return await workspace.processes()

    processes = run_to_end(program())
    if as_json:
        render.print_json([render.as_dict(process) for process in processes])
    else:
        render.print_processes(processes)


@click.command("logs")
@required_target
@click.option(
    "--follow", "-f", is_flag=True, help="Go on until the process ends; its exit code is then this program's."
)
@click.option("--tail", "-n", type=click.IntRange(min=0), metavar="LINES", help="Begin that many lines before the end.")
@click.option("--offset", type=click.IntRange(min=0), metavar="BYTES", help="Begin at that byte of the output.")
@click.argument("workspace_id", shell_complete=complete_workspace)
@click.argument("process_id", shell_complete=complete_process)
def show_output(
    target: str, follow: bool, tail: int | None, offset: int | None, workspace_id: str, process_id: str
) -> None:
    """Show what a process has printed, as far as it is kept.

    It only looks on: the process is neither kept alive nor let go on by it.
    """
    if tail is not None and offset is not None:
        raise click.UsageError("use either --tail or --offset")

    async def program() -> int:
        async with AgenticWorkspace.connect(workspace_id, target=target, retry_timeout=RETRY_TIMEOUT) as workspace:
            process = await find_process(workspace, process_id)
            begin = offset or 0
            if tail is not None:
                begin = await _begin_of_tail(workspace, process, tail)
            return await _show(workspace, process, begin, follow=follow)

    sys.exit(run_to_end(program()))


async def find_process(workspace: AgenticWorkspace, process_id: str) -> ProcessInfo:
    """Returns a process of a workspace.

    Raises:
        ProcessNotFoundError: There is none of that id; the error says how to find one.
    """
    for process in await workspace.processes():
        if process.id == process_id:
            return process
    raise ProcessNotFoundError(
        f"workspace {workspace.id} has no process {process_id!r}; "
        f"`agentic-isolation ps {workspace.id}` lists those it has"
    )


async def _show(workspace: AgenticWorkspace, process: ProcessInfo, begin: int, *, follow: bool) -> int:
    """Passes on what was printed from `begin`, and with `follow` what will be; returns this program's exit code."""
    end = process.output_bytes
    if begin > end:
        raise InvalidArgumentError(f"{begin} is beyond the {end} bytes that were printed so far", field="--offset")
    if begin == end and not follow:
        return 0
    outputs = {OutputSource.STDOUT: sys.stdout.buffer, OutputSource.STDERR: sys.stderr.buffer}
    async with await workspace.attach(process.id, offset=begin, observe=True) as reader:
        async for event in reader:
            if isinstance(event, Output):
                data = event.data if follow else event.data[: max(0, end - (reader.offset - len(event.data)))]
                outputs[event.source].write(data)
                outputs[event.source].flush()
            elif isinstance(event, Gap):
                click.echo(f"agentic-isolation: {event.lost_bytes} bytes of output are kept no more", err=True)
            elif isinstance(event, Exited):
                return event.termination.returncode if follow else 0
            if not follow and reader.offset >= end:
                return 0
    raise AssertionError("a process's events end with Exited")


async def _begin_of_tail(workspace: AgenticWorkspace, process: ProcessInfo, lines: int) -> int:
    """Returns the offset of the last so many lines, as far as they are kept."""
    end = process.output_bytes
    length = _TAIL_BLOCK
    while True:
        begin = max(0, end - length)
        data, begin = await _kept(workspace, process.id, begin, end)
        place = _place_of_last_lines(data, lines)
        if place is not None:
            return begin + place
        if begin == 0 or length >= _MOST_TAIL or len(data) < length:
            return begin
        length *= 2


def _place_of_last_lines(data: bytes, lines: int) -> int | None:
    """Returns where the last so many lines begin; None where they begin before `data` does."""
    if not lines:
        return len(data)
    # A newline at the very end ends the last line and begins none.
    place = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(lines):
        place = data.rfind(b"\n", 0, place)
        if place < 0:
            return None
    return place + 1


async def _kept(workspace: AgenticWorkspace, process_id: str, begin: int, end: int) -> tuple[bytes, int]:
    """Returns the output between two offsets, as far as it is kept, and where that begins."""
    data = bytearray()
    if begin == end:
        return b"", begin
    async with await workspace.attach(process_id, offset=begin, observe=True) as reader:
        async for event in reader:
            if isinstance(event, Gap):
                begin += len(data) + event.lost_bytes
                data.clear()
            elif isinstance(event, Output):
                data += event.data
            if isinstance(event, Exited) or reader.offset >= end:
                break
    return bytes(data[: max(0, end - begin)]), begin
