"""Tenants that show tokens: what a service is configured by, and its stubs as each of them has it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any, cast

from tests.integration.wire import Stub


def token_of(name: str) -> str:
    """Returns the token that somebody of that name shows."""
    return f"ais_token-of-{name}"


def token_table(name: str, more: str = "") -> str:
    """Returns the table that makes a service know it."""
    return f'[[token]]\nname = "{name}"\nsha256 = "{hashlib.sha256(token_of(name).encode()).hexdigest()}"\n{more}\n'


def tenant_table(name: str, more: str = "", *identities: str) -> str:
    """Returns the table of a tenant, whose callers show the token of its name."""
    named = [f"token:{name}", *identities]
    return f'[[tenant]]\nname = "{name}"\nidentities = {named}\n{more}\n'


class ShownStub:
    """A stub of a service that shows something with each call."""

    def __init__(self, stub: Stub, *shown: tuple[str, str]) -> None:
        self._stub = stub
        self._shown = list(shown)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return functools.partial(getattr(self._stub, name), metadata=self._shown)


def shown(stub: Stub, token: str) -> Stub:
    """Returns a stub that shows a token."""
    return cast("Stub", ShownStub(stub, ("authorization", f"Bearer {token}")))


def stub_of(stub: Stub, name: str) -> Stub:
    """Returns a stub as somebody of that name has it."""
    return shown(stub, token_of(name))
