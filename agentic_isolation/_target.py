"""Which service to use: the one that is named, the environment's, or one that is embedded in this program."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractAsyncContextManager

from agentic_isolation._embedded import embedded_target
from agentic_isolation._wire import check_text
from agentic_isolation.credentials import Credentials

TARGET_VARIABLE = "AGENTIC_ISOLATION_TARGET"
"""Environment variable with the address of the service to use; unset or empty: an embedded one."""


def target_or_default(target: str | None) -> str:
    """Returns the address that was named, else the environment's; empty: use an embedded service.

    Raises:
        InvalidArgumentError: It is no text.
    """
    if target is None:
        return check_text(os.environ.get(TARGET_VARIABLE, ""), TARGET_VARIABLE)
    return check_text(target, "target")


def service_at(target: str) -> AbstractAsyncContextManager[str]:
    """Yields the address of the service at `target`; empty: of this event loop's embedded one."""
    return contextlib.nullcontext(target) if target else embedded_target()


def credentials_for(target: str, credentials: Credentials | None) -> Credentials:
    """Returns what is shown to the service at `target`: what was given, else the environment's; nothing to our own.

    Raises:
        InvalidArgumentError: The environment's contradict each other.
    """
    if not target:
        return Credentials()
    return Credentials.from_environment() if credentials is None else credentials
