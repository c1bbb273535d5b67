"""`top`: the workspaces of a service, their processes and what those print, live."""

from __future__ import annotations

import click

from agentic_isolation_service.cli import render, terminal
from agentic_isolation_service.cli.options import parse_pairs, required_target, run_to_end

_MISSING = (
    "the full-screen view needs textual, which is not installed: pip install 'agentic-isolation[top]'; "
    "`top --once` prints a table without it"
)


@click.command()
@required_target
@click.option("--label", "-l", multiple=True, metavar="NAME=VALUE", help="Only workspaces with this label; repeatable.")
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option(
    "--interval", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds between looks."
)
def top(target: str, label: tuple[str, ...], once: bool, interval: float) -> None:
    """Watch a service's workspaces: their processes, CPU, memory, leases, and the output of the selected process.

    It only looks on: no process is kept alive or let go on by it.
    """
    labels = parse_pairs("--label", label)
    if once:
        from agentic_isolation_service.cli.top.tables import WORKSPACE_COLUMNS, workspace_cells
        from agentic_isolation_service.cli.top.watching import look_twice

        table = render.new_table(*WORKSPACE_COLUMNS)
        for row in run_to_end(look_twice(target, labels)):
            table.add_row(*workspace_cells(row))
        render.print_table(table)
        return
    if not terminal.is_terminal(0, 1):
        raise click.ClickException("the full-screen view needs a terminal; `top --once` prints a table anywhere")
    try:
        from agentic_isolation_service.cli.top.view import TopView
    except ImportError as error:
        if error.name != "textual":
            raise
        raise click.ClickException(_MISSING) from error
    run_to_end(TopView(target, labels, interval).run_async())
