"""Standard health checks (grpc.health.v1), which everybody may ask for: bounded, and nobody is in another's way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

MAX_WATCHES = 1_000
"""Calls of Watch at a time. Each takes some 20 KiB for as long as its client likes, whoever that is."""
_Response = health_pb2.HealthCheckResponse
_stubless: Any = health_pb2
"""The same; its type stubs lack what List takes and gives."""


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Tells that services take calls, until they drain.

    In the stock servicer a watcher who takes no messages would hold up the drain, and all who watch the same service.

    Args:
        services: Their names.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(services)
        self._draining = asyncio.Event()
        self._watches = 0

    def drain(self) -> None:
        """Tells everybody that no service takes calls any more."""
        self._draining.set()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> _Response:
        """Answers with a service's health.

        Errors: NOT_FOUND, there is no such service.
        """
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return _Response(status=self._status(request.service))

    async def List(self, request: Any, context: Any) -> Any:
        """Answers with the health of every service."""
        statuses = {service: _Response(status=self._status(service)) for service in self._services}
        return _stubless.HealthListResponse(statuses=statuses)

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
            told = None
            while (status := self._status(request.service)) != told:
                await context.write(_Response(status=status))
                told = status
                if status == _Response.SERVING:
                    await self._draining.wait()
            await asyncio.get_running_loop().create_future()
        finally:
            self._watches -= 1

    def _status(self, service: str) -> int:
        if service not in self._services:
            return _Response.SERVICE_UNKNOWN
        return _Response.NOT_SERVING if self._draining.is_set() else _Response.SERVING
