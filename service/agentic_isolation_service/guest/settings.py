"""Settings that a guest is started with, whatever its place: docs/guest-protocol.md."""

from __future__ import annotations

import math

from agentic_isolation.models import WorkspaceConfig


def terms(config: WorkspaceConfig) -> dict[str, object]:
    """Returns the settings that say how long a guest lives, in whole milliseconds."""
    seconds = {"lease_ms": config.lease, "idle_ms": config.idle_timeout, "lifetime_ms": config.max_lifetime}
    return {name: math.ceil(value * 1000) for name, value in seconds.items() if value is not None}


def times(config: WorkspaceConfig, *, request_window: float) -> dict[str, object]:
    """Returns the settings that say how long a guest lives and remembers, in whole milliseconds.

    Args:
        config: The workspace.
        request_window: Seconds that the guest remembers the results of requests.
    """
    return {**terms(config), "request_window_ms": math.ceil(request_window * 1000)}
