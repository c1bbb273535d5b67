"""Which of the providers a service offers."""

from __future__ import annotations

from collections.abc import Sequence

from agentic_isolation.errors import InvalidArgumentError

PROVIDERS = ("docker", "local")
"""The names of all providers."""


def check_providers(offered: Sequence[str], of_pools: Sequence[str]) -> None:
    """Raises InvalidArgumentError where there is no such provider, or a pool is of one that is not offered."""
    unknown = sorted(set(offered) - set(PROVIDERS))
    if unknown or not offered:
        found = ", ".join(unknown) or "none"
        raise InvalidArgumentError(f"{found}: use {' or '.join(PROVIDERS)}, or both", field="providers")
    for position, name in enumerate(of_pools):
        if name not in offered:
            raise InvalidArgumentError(
                f"this service makes no workspaces of {name!r}, only of {' and '.join(offered)}",
                field=f"pool[{position}].provider",
            )
