"""Standard health checks (grpc.health.v1), which everybody may ask for, within bounds."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

MAX_WATCHES = 500
"""Calls of Watch at a time. Each takes some 20 KiB for as long as its client likes, whoever that is."""


class HealthServicer(health.aio.HealthServicer):
    """The stock servicer, with a bound on those who watch."""

    def __init__(self) -> None:
        super().__init__()
        self._watches = 0

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """Tells a service's health and its changes, until the client goes.

        Errors: RESOURCE_EXHAUSTED, too many watch.
        """
        if self._watches >= MAX_WATCHES:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"there are {MAX_WATCHES} calls of Watch, and there may be no more; call Check every now and then",
            )
        self._watches += 1
        try:
            await super().Watch(request, context)
        finally:
            self._watches -= 1
