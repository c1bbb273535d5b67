"""What others are told of the service while it runs: metrics and traces. Loads neither's library before it is asked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.rpc.calls import Layer
from agentic_isolation_service.settings.telemetry import TracingSettings


@contextlib.asynccontextmanager
async def telemetry(
    workspaces: Workspaces, *, metrics_address: str | None = None, tracing: TracingSettings | None = None
) -> AsyncIterator[list[Layer]]:
    """Tells of a service's workspaces and calls as long as it is open; yields the layers that calls have to have.

    Args:
        workspaces: What is told of.
        metrics_address: `host:port` where metrics are served; None: nowhere.
        tracing: Where spans are sent; None: nowhere.

    Raises:
        OSError: The address cannot be listened on.
        UnsupportedError: What traces need is not installed.
    """
    async with contextlib.AsyncExitStack() as stack:
        layers: list[Layer] = []
        if metrics_address is not None:
            from agentic_isolation_service.telemetry.metrics import measured

            layers.append(await stack.enter_async_context(measured(workspaces, metrics_address)))
        if tracing is not None:
            from agentic_isolation_service.telemetry.tracing import traced

            layers.append(await stack.enter_async_context(traced(tracing)))
        yield layers
