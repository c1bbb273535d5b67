"""`ls`, `rm` and `info`: looking at a service and its workspaces."""

from __future__ import annotations

import sys

import click

from agentic_isolation import AgenticWorkspace, IsolationError, ServerInfo, WorkspaceInfo
from agentic_isolation._target import connected
from agentic_isolation.service import ServiceCalls, ServiceClient
from agentic_isolation_service.cli import FAILED, render
from agentic_isolation_service.cli.completion import complete_workspace
from agentic_isolation_service.cli.escaping import escaped
from agentic_isolation_service.cli.options import (
    a_replica,
    json_output,
    optional_target,
    parse_pairs,
    required_target,
    run_to_end,
)


@click.command("ls")
@required_target
@click.option("--label", "-l", multiple=True, metavar="NAME=VALUE", help="Only those with this label; repeatable.")
@a_replica
@json_output
def list_workspaces(target: str, label: tuple[str, ...], replica: str | None, as_json: bool) -> None:
    """List a service's workspaces, oldest first."""
    labels = parse_pairs("--label", label)

    async def program() -> list[WorkspaceInfo]:
        async with ServiceClient(target, retry_timeout=0, replica=replica) as service:
            return [workspace async for workspace in service.list_workspaces(labels)]

    workspaces = run_to_end(program())
    if as_json:
        render.print_json([render.as_dict(workspace) for workspace in workspaces])
    else:
        render.print_workspaces(workspaces)


@click.command("rm")
@required_target
@click.argument("workspace_ids", nargs=-1, required=True, metavar="WORKSPACE…", shell_complete=complete_workspace)
def remove(target: str, workspace_ids: tuple[str, ...]) -> None:
    """Kill everything in workspaces and remove them.

    Prints those that it has removed. One that cannot be removed is told and keeps none of the others; the exit code is
    then 125.
    """

    async def program() -> bool:
        removed = True
        async with ServiceClient(target, retry_timeout=0) as service:
            for workspace_id in workspace_ids:
                try:
                    await service.destroy_workspace(workspace_id)
                except IsolationError as error:
                    removed = False
                    click.echo(f"agentic-isolation: {escaped(str(error))}", err=True)
                else:
                    click.echo(workspace_id)
        return removed

    if not run_to_end(program()):
        sys.exit(FAILED)


@click.command()
@optional_target
@click.argument("workspace_id", required=False, shell_complete=complete_workspace)
@a_replica
@json_output
def info(target: str | None, workspace_id: str | None, replica: str | None, as_json: bool) -> None:
    """Describe a service and what it can isolate, or one workspace and the isolation it has."""
    if workspace_id is not None and not target:
        raise click.UsageError("a workspace is a running service's: name that by --target")

    async def workspace() -> WorkspaceInfo:
        async with AgenticWorkspace.connect(workspace_id or "", target=target, retry_timeout=0) as found:
            return found.info

    async def server() -> ServerInfo:
        if target:
            async with ServiceClient(target, retry_timeout=0, replica=replica) as service:
                return await service.info()
        async with connected("", retry_timeout=0) as embedded:
            return await ServiceCalls(embedded).info()

    if workspace_id is None:
        described = run_to_end(server())
        render.print_json(render.as_dict(described)) if as_json else render.print_server(described)
    else:
        found = run_to_end(workspace())
        render.print_json(render.as_dict(found)) if as_json else render.print_workspace(found)
