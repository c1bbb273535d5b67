"""`token`: making a token that the service knows by its hash."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

import click

from agentic_isolation_service.settings.tokens import tokens_of

_BYTES = 32
_MOST_DAYS = 1_000_000
_PREFIX = "ais_"
"""By which programs that look for leaked secrets can find one."""


@click.command()
@click.argument("name")
@click.option("--days", type=click.IntRange(1, _MOST_DAYS), help="After so many days it is not taken any more.")
def token(name: str, days: int | None) -> None:
    """Make a token called NAME: print it, and on standard error the table for the service's configuration file.

    The service gets the hash only. To keep the token where nobody reads it over your shoulder:

    \b
        umask 077; agentic-isolation token ci > ci.token
        AGENTIC_ISOLATION_TOKEN_FILE=ci.token agentic-isolation ls --target …
    """  # noqa: D301  the character by which click leaves a paragraph's lines as they are
    made = _PREFIX + secrets.token_urlsafe(_BYTES)
    table: dict[str, object] = {"name": name, "sha256": hashlib.sha256(made.encode()).hexdigest()}
    lines = ["[[token]]", f'name = "{name}"', f'sha256 = "{table["sha256"]}"']
    if days is not None:
        expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
        table["expires"] = expires
        lines.append(f"expires = {expires.isoformat().replace('+00:00', 'Z')}")
    tokens_of([table])  # raises for a name that would be refused later
    click.echo("\n".join(lines), err=True)
    click.echo(made)
