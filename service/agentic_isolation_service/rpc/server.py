"""The grpc.aio server: the service, standard health and reflection, and the error boundary around them."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from agentic_isolation._cleanup import finish
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.rpc import unix_socket
from agentic_isolation_service.rpc.authentication.gate import Gate
from agentic_isolation_service.rpc.authentication.layer import Authentication
from agentic_isolation_service.rpc.backlog import Backlog
from agentic_isolation_service.rpc.calls import Layer
from agentic_isolation_service.rpc.drain import Drain
from agentic_isolation_service.rpc.errors import ErrorBoundary
from agentic_isolation_service.rpc.health import HealthServicer
from agentic_isolation_service.rpc.openings import Openings
from agentic_isolation_service.rpc.overload import SPARED
from agentic_isolation_service.rpc.registration import Registration
from agentic_isolation_service.rpc.relay import Relay
from agentic_isolation_service.rpc.servicer import MESSAGE_BYTES, WorkspaceServicer, is_resumable
from agentic_isolation_service.rpc.tls import ServerCertificates
from agentic_isolation_service.rpc.unix_socket import SocketAccess

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["WorkspaceService"].full_name

_CHANNELZ = "grpc.channelz.v1.Channelz"
_MOST_CONNECTIONS = (1 << 31) - 1
"""Of any number of files."""
_FILES_OF_RELAYED = 3
"""Open files that a connection takes which is passed on, in place of one."""
_LAST_WORDS = 2.0
"""Seconds for the statuses of calls that have just been ended to leave."""
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    # Of a call's metadata, a long token among them. Between the two gRPC refuses some calls and not others.
    ("grpc.max_metadata_size", 32 << 10),
    ("grpc.absolute_max_metadata_size", 64 << 10),
    # What is under way to it a ping has to wait behind: on a slow path so little of it that the answer comes in time,
    # while probing for more would grow it to megabytes. Half as much would be little for paths that are fast and long.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 << 10),
    # Of a header that it could not read, such as a malformed grpc-timeout, gRPC's core remembers its name as bad, and
    # fails the next calls on that connection that refer to it. Behind a proxy these are others' calls: so nothing is
    # remembered (RFC 7541, section 4.2).
    ("grpc.http2.hpack_table_size.decoder", 0),
    # A second server must fail to bind a taken port instead of sharing its connections.
    ("grpc.so_reuseport", 0),
    # Of the calls that wait to be accepted gRPC refuses some from a thousand on, whosever they are, and all from three
    # thousand on. It would refuse as many of them, but those that are left would have waited twice as long.
    ("grpc.server.max_pending_requests", 1_000),
    ("grpc.server.max_pending_requests_hard_limit", 1_200),
    # Clients that ask every few seconds whether the path is still there are welcome; unset, gRPC cuts them off when
    # they ask more often than every five minutes while a command is silent.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A client whose machine or path has gone is noticed too: what it ran is given up, after its linger.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
)


def options_of(open_files: int) -> tuple[tuple[str, int], ...]:
    """Returns the options of a server in a process that may have so many files open.

    Half of them are for connections. Whoever takes all of these, as anybody can who reaches the port, keeps others from
    connecting, but not those who are connected from having workspaces made.
    """
    return (*_OPTIONS, ("grpc.max_allowed_incoming_connections", _connections_of(open_files)))


def _connections_of(open_files: int) -> int:
    return _MOST_CONNECTIONS if open_files == resource.RLIM_INFINITY else min(open_files // 2, _MOST_CONNECTIONS)


class RpcServer:
    """A server for `workspaces`. Made, it listens nowhere yet.

    Args:
        workspaces: What it serves.
        layers: What surrounds each call of our service, the outermost first.
        authentication: Who may use the other services, but for health checks; None: everybody. Ours has it as a layer.
        backlog: Counts the calls that are accepted; None: nobody wants to know.
        channelz: Tell of connections and calls by gRPC's channelz.
    """

    def __init__(
        self,
        workspaces: Workspaces,
        layers: Sequence[Layer] = (),
        *,
        authentication: Authentication | None = None,
        backlog: Backlog | None = None,
        channelz: bool = False,
    ) -> None:
        self._drain = Drain()
        openings = Openings(SERVICE_NAME)
        interceptors: list[grpc.aio.ServerInterceptor] = [openings] if backlog is None else [backlog, openings]
        if authentication is not None:
            open_services = SERVICE_NAME, health.SERVICE_NAME
            interceptors.append(Gate(authentication, open_services, admin_services=(_CHANNELZ,)))
        interceptors.append(ErrorBoundary(SERVICE_NAME, self._drain, is_resumable, openings.first, layers))

        def make() -> grpc.aio.Server:
            open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return grpc.aio.server(interceptors=interceptors, options=options_of(open_files))

        self._server = make() if backlog is None else backlog.made(make)
        self._relay: Relay | None = None
        self._health = HealthServicer(("", SERVICE_NAME))
        # Neither what overload spares nor health checks wait behind calls that it refuses.
        ours: Any = Registration(self._server, SPARED)
        pb_grpc.add_WorkspaceServiceServicer_to_server(WorkspaceServicer(workspaces), ours)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME]
        if channelz:
            _add_channelz(self._server)
            names.append(_CHANNELZ)
        reflection.enable_server_reflection(names, self._server)

    async def start(
        self,
        address: str,
        *,
        certificates: ServerCertificates | None = None,
        access: SocketAccess = SocketAccess(),  # noqa: B008  it is frozen
        ask_users: bool = False,
    ) -> int:
        """Listens on `host:port` or `unix:PATH` and begins to serve; returns the port (0 for a unix socket).

        Args:
            address: Where to listen; a unix socket's was checked (unix_socket.py).
            certificates: Of TLS; None: plaintext.
            access: Who may connect to a unix socket.
            ask_users: Find out who connects to it, see relay.py.

        Raises:
            OSError: The address cannot be listened on.
        """

        def bind(address: str) -> int:
            try:
                if certificates is None:
                    return self._server.add_insecure_port(address)
                return self._server.add_secure_port(address, certificates.credentials())
            except RuntimeError as error:
                raise OSError(f"cannot listen on {address}: {error}") from error

        port, path = 0, address.removeprefix("unix:")
        if path == address:
            port = bind(address)
        elif ask_users:
            open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            self._relay = Relay(path, most=_connections_of(open_files) // _FILES_OF_RELAYED)
            inner = self._relay.inner_path
            unix_socket.bound(inner, lambda: bind(f"unix:{inner}"), SocketAccess())
        else:
            unix_socket.bound(path, lambda: bind(address), access)
        # A start that is cancelled half way leaves a server that cannot be stopped.
        await finish(self._server.start())
        if self._relay is not None:
            await finish(self._relay.listen(access))
        return port

    async def stop(self, grace: float) -> None:
        """Ends it in good order, see drain.py. Health checks are told first; who watches them is cut off at the end.

        Args:
            grace: Seconds for calls that would be lost.
        """
        self._health.drain()
        await self._drain.run(grace)
        await self._server.stop(_LAST_WORDS)
        if self._relay is not None:
            await self._relay.aclose(_LAST_WORDS)


def _add_channelz(server: grpc.aio.Server) -> None:
    from grpc_channelz.v1 import channelz

    channelz.add_channelz_servicer(server)
