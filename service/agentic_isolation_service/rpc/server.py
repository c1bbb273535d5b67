"""The grpc.aio server: the service, standard health and reflection, and the error boundary around them."""

from __future__ import annotations

import asyncio

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from agentic_isolation._cleanup import finish
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.rpc.drain import Drain
from agentic_isolation_service.rpc.errors import ErrorBoundary
from agentic_isolation_service.rpc.servicer import MESSAGE_BYTES, WorkspaceServicer, is_resumable

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["WorkspaceService"].full_name

_LAST_WORDS = 2.0
"""Seconds for the statuses of calls that have just been ended to leave."""
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    # A second server must fail to bind a taken port instead of sharing its connections.
    ("grpc.so_reuseport", 0),
    # Clients that ask every few seconds whether the path is still there are welcome; unset, gRPC cuts them off when
    # they ask more often than every five minutes while a command is silent.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    # A client whose machine or path has gone is noticed too: what it ran is given up, after its linger.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
)


class RpcServer:
    """A server for `workspaces`. Made, it listens nowhere yet."""

    def __init__(self, workspaces: Workspaces) -> None:
        self._drain = Drain()
        boundary = ErrorBoundary(SERVICE_NAME, self._drain, is_resumable)
        self._server = grpc.aio.server(interceptors=[boundary], options=_OPTIONS)
        self._health = health.aio.HealthServicer()
        pb_grpc.add_WorkspaceServiceServicer_to_server(WorkspaceServicer(workspaces), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self, address: str) -> int:
        """Listens on `host:port` or `unix:PATH` and begins to serve; returns the port (0 for a unix socket).

        Raises:
            OSError: The address cannot be listened on.
        """
        await _refuse_taken_socket(address)
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        # A start that is cancelled half way leaves a server that cannot be stopped.
        await finish(self._server.start())
        for name in ("", SERVICE_NAME):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port if not address.startswith("unix:") else 0

    async def stop(self, grace: float) -> None:
        """Ends it in good order, see drain.py. Health checks are told first; who watches them is cut off at the end.

        Args:
            grace: Seconds for calls that would be lost.
        """
        await self._health.enter_graceful_shutdown()
        await self._drain.run(grace)
        await self._server.stop(_LAST_WORDS)


async def _refuse_taken_socket(address: str) -> None:
    """Raises OSError where somebody listens on this unix socket: gRPC would take it away from them."""
    if not address.startswith("unix:"):
        return
    try:
        _, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    except OSError:
        return
    writer.close()
    raise OSError(f"cannot listen on {address}: another program listens there")
