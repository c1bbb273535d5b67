"""What several commands share: options, and running a coroutine that signals end cleanly."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TypeVar

import click

from agentic_isolation._target import TARGET_VARIABLE
from agentic_isolation_service.config import DEFAULT_ADDRESS

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., object])

TARGET_HELP = "Address of the service, host:port or unix:PATH."


def optional_target(command: _F) -> _F:
    """Adds --target, without which a command embeds a service."""
    return click.option(
        "--target", envvar=TARGET_VARIABLE, help=f"{TARGET_HELP} Without it, one is embedded in this program."
    )(command)


def required_target(command: _F) -> _F:
    """Adds --target for commands that make sense only with a running service."""
    return click.option(
        "--target", envvar=TARGET_VARIABLE, default=DEFAULT_ADDRESS, show_default=True, help=TARGET_HELP
    )(command)


a_replica = click.option("--replica", metavar="NAME", help="Behind a proxy, which replica to ask; else any.")
json_output = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def run_to_end(program: Coroutine[object, object, _T]) -> _T:
    """Runs a coroutine. SIGINT, SIGTERM and SIGHUP cancel it, so that it cleans up; then exits with 128 + the signal.

    One that the caller has told us to ignore, as nohup(1) does, stays ignored.
    """
    received: list[int] = []

    async def cancellable() -> _T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(program)

        def stop(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, stop, number)
        return await task

    try:
        result = asyncio.run(cancellable())
    except asyncio.CancelledError:
        sys.exit(128 + received[0] if received else 1)
    if received:  # it has ended for the signal, without a word
        sys.exit(128 + received[0])
    return result


def parse_pairs(option: str, pairs: tuple[str, ...]) -> dict[str, str]:
    """Returns an option's NAME=VALUE as a dictionary. Raises click.BadParameter, naming it, where there is no '='."""
    parsed = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint=option)
        parsed[name] = value
    return parsed
