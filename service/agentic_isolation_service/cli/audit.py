"""`audit`: looking into an audit log without the service."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agentic_isolation_service.audit.chain import NOTHING
from agentic_isolation_service.audit.verifying import verify
from agentic_isolation_service.cli.escaping import escaped

_FILES = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True))


def _hash(_context: click.Context, _option: click.Parameter, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    for text in (value,) if isinstance(value, str) else value:
        if len(text) != len(NOTHING) or not set(text) <= set("0123456789abcdef"):
            raise click.BadParameter(f"{text!r} is not a hash, which has {len(NOTHING)} of 0-9 and a-f")
    return value


@click.group()
def audit() -> None:
    """Verify an audit log, which `serve --audit-log` has written."""


@audit.command("verify")
@_FILES
@click.option(
    "--after",
    default=NOTHING,
    callback=_hash,
    metavar="HASH",
    help="The hash that the first FILE goes on from. Without it, that FILE has to begin the chain.",
)
@click.option(
    "--head",
    "heads",
    multiple=True,
    callback=_hash,
    metavar="HASH",
    help="A hash that was kept elsewhere, which has to be there: what was cut off, or made anew, is not found without "
    "one. Repeatable.",
)
def verify_log(files: tuple[Path, ...], after: str, heads: tuple[str, ...]) -> None:
    """Verify that FILES, one log from the oldest to the newest, are as they were written.

    Exits with 0 where they are, and with 1 where they are not, naming the first line that is wrong.
    """
    findings = verify(files, after=after, heads=heads)
    for note in findings.notes:
        click.echo(escaped(f"note: {note}"), err=True)
    if findings.error:
        click.echo(escaped(findings.error), err=True)
        sys.exit(1)
    click.echo(f"{findings.entries} entries are as they were written; the last one is {findings.head}")


@audit.command("head")
@_FILES
@click.option("--after", default=NOTHING, callback=_hash, metavar="HASH", help="As for `verify`.")
def print_head(files: tuple[Path, ...], after: str) -> None:
    """Print the hash of the last entry of FILES, once they are verified, to be kept elsewhere."""
    findings = verify(files, after=after)
    if findings.error:
        click.echo(escaped(findings.error), err=True)
        sys.exit(1)
    click.echo(findings.head)
