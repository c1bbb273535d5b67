"""What deployments tell `agentic-isolation serve`, parsed by that command itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentic_isolation_service.cli.serve import serve
from agentic_isolation_service.rpc import drain, server
from tests.support.program import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
ENDING = drain._END_TIMEOUT + server._LAST_WORDS
"""Seconds that calls get after their grace, to be ended."""
SPARE = 5.0
"""Seconds for everything else that a service does at its end: it closes what it holds, and destroys nothing."""


def options_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Returns the options that arguments `serve …` stand for; raises click's error where it would."""
    assert arguments[0] == "serve"
    return dict(serve.make_context("serve", list(arguments[1:])).params)


def check_service(options: dict[str, Any]) -> None:
    """Checks what holds for every deployment."""
    assert options["providers"] == ("docker",), "commands of the local provider would run beside the engine's socket"
    assert str(options["state_dir"]) == "/var/lib/agentic-isolation/state", "a directory below the volume's, of its own"
    assert options["log_json"]
