"""What surrounds each call of a service, and in which order; a part of the composition root."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from agentic_isolation._nested import nested
from agentic_isolation._version import __version__
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.overload import Load
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.rpc.authentication.layer import Authentication
from agentic_isolation_service.rpc.backlog import Backlog
from agentic_isolation_service.rpc.call_logs import AccessLog
from agentic_isolation_service.rpc.calls import Layer
from agentic_isolation_service.rpc.overload import OverloadLayer
from agentic_isolation_service.rpc.quotas import QuotaLayer
from agentic_isolation_service.telemetry import telemetry


@nested
async def layers_of(
    config: ServiceConfig,
    workspaces: Workspaces,
    authentication: Authentication | None,
    backlog: Backlog,
) -> AsyncIterator[list[Layer]]:
    """Yields the layers of calls, the outermost first; what they need is open meanwhile.

    Who watches is outermost, so that it sees what is refused: telemetry, then the log, then the audit. Who calls is
    found out next, and then whether there is room. What the audit says of a beginning comes when all have agreed.

    Args:
        config: The service's.
        workspaces: What its calls are about.
        authentication: Finds out who calls; None: whoever calls is the operator.
        backlog: The calls that are accepted.

    Raises:
        OSError: The address for metrics cannot be listened on, or the audit log cannot be written.
        InvalidArgumentError: Tracing is asked for and not installed.
    """
    file = config.file
    async with contextlib.AsyncExitStack() as stack:
        innermost: list[Layer] = []
        metrics_address = file.metrics_address if config.metrics_address is None else config.metrics_address
        watching = telemetry(workspaces, metrics_address=metrics_address, tracing=file.tracing)
        layers: list[Layer] = [*await stack.enter_async_context(watching)]
        if AccessLog.is_wanted():
            layers.append(AccessLog())
        if file.audit is not None:
            from agentic_isolation_service.audit.layers import Beginnings, Results
            from agentic_isolation_service.audit.log import AuditLog

            opening = AuditLog.open(file.audit, version=__version__, address=config.address)
            results = Results(await stack.enter_async_context(opening), identifies=authentication is not None)
            stack.callback(results.strangers.tell)
            layers.append(results)
            innermost.append(Beginnings(results))
        if authentication is not None:
            layers.append(authentication)
        layers.append(OverloadLayer(Load(), backlog))
        if file.quotas.bound_anything:
            layers.append(QuotaLayer(file.quotas))
        yield [*layers, *innermost]
