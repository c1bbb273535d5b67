"""The service on the network: its workspaces, a server for them, who may call it, and what surrounds each call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from agentic_isolation._nested import nested
from agentic_isolation_service.app import open_workspaces
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.identities import authentication_of, certificates_of, warnings_of
from agentic_isolation_service.layers import layers_of
from agentic_isolation_service.rpc import unix_socket
from agentic_isolation_service.rpc.authentication.layer import administrator
from agentic_isolation_service.rpc.backlog import Backlog
from agentic_isolation_service.rpc.server import RpcServer
from agentic_isolation_service.rpc.unix_socket import SocketAccess
from agentic_isolation_service.settings.listening import RELAYED_SUFFIX, is_unix

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def serve(config: ServiceConfig) -> AsyncIterator[str]:
    """Runs a service and yields the address that it listens on, with the port that it got.

    On the way out it refuses new calls and gives running ones `config.grace` seconds. For workspaces see
    open_workspaces.

    Raises:
        OSError: The state directory, the audit log or the address cannot be used.
    """
    async with (
        open_workspaces(config) as workspaces,
        _listening(workspaces, config) as address,
    ):
        yield address


@nested
async def _listening(workspaces: Workspaces, config: ServiceConfig) -> AsyncIterator[str]:
    """Serves on the configured address meanwhile, and yields it with the port that it got."""
    address = config.address
    tenants = config.file.tenants
    authentication = await asyncio.to_thread(authentication_of, config, tenants.caller_of if tenants else administrator)
    certificates = await asyncio.to_thread(certificates_of, config)
    access = SocketAccess(mode=config.socket_mode)
    if is_unix(address):
        path, anywhere = address.removeprefix("unix:"), config.insecure_listen
        if config.file.unix is not None:
            await unix_socket.check(path + RELAYED_SUFFIX, access, group=None, anywhere=anywhere)
        access = await unix_socket.check(path, access, group=config.socket_group, anywhere=anywhere)
    backlog = Backlog()
    async with layers_of(config, workspaces, authentication, backlog) as layers:
        # Nothing is waited for until it is started: gRPC never lets go of a server that was not.
        server = RpcServer(
            workspaces, layers, authentication=authentication, backlog=backlog, channelz=config.channelz
        )  # fmt: skip
        try:
            port = await server.start(
                address, certificates=certificates, access=access, ask_users=config.file.unix is not None
            )
            for warning in warnings_of(config):
                _log.warning(warning)
            yield f"{address.rpartition(':')[0]}:{port}" if port else address
        finally:
            await server.stop(config.grace)
