"""`health`: whether a service takes calls, for the probes of containers and orchestrators."""

from __future__ import annotations

import sys

import click

from agentic_isolation.service import ServiceClient
from agentic_isolation_service.cli.options import required_target, run_to_end

NOT_SERVING = 1
"""Exit code for a service that answers and takes no calls."""


@click.command()
@required_target
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Seconds for its answer.",
)
def health(target: str, timeout: float) -> None:
    """Ask a service whether it takes calls.

    The exit code is 0 if it does, 1 if it takes none (it has been told to end), and 125 if it does not answer.
    """

    async def program() -> bool:
        async with ServiceClient(target, retry_timeout=0) as service:
            return await service.serves(timeout=timeout)

    serves = run_to_end(program())
    click.echo("SERVING" if serves else "NOT_SERVING")
    if not serves:
        sys.exit(NOT_SERVING)
