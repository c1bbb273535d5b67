"""The composition root: the only place that knows which providers there are. Each is loaded when it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

from agentic_isolation._connection import Connects
from agentic_isolation._nested import nested
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.ports import Provider
from agentic_isolation_service.core.replicas import Replica
from agentic_isolation_service.core.tenants import Tenants
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.identities import authentication_of, certificates_of, warnings_of
from agentic_isolation_service.layers import layers_of
from agentic_isolation_service.registry import SqliteRegistry
from agentic_isolation_service.rpc import unix_socket
from agentic_isolation_service.rpc.authentication.layer import administrator
from agentic_isolation_service.rpc.backlog import Backlog
from agentic_isolation_service.rpc.in_process import InProcessConnection
from agentic_isolation_service.rpc.server import RpcServer
from agentic_isolation_service.rpc.unix_socket import SocketAccess
from agentic_isolation_service.settings.file import settings_of_environment
from agentic_isolation_service.settings.listening import is_unix
from agentic_isolation_service.state import StateDirectory

_log = logging.getLogger(__name__)


@nested
async def open_workspaces(config: ServiceConfig) -> AsyncIterator[Workspaces]:
    """Opens a service's workspaces without any way in over the network.

    On the way out it leaves them to the next service with its state directory; without one it destroys them.

    Raises:
        OSError: The state directory or what lies in it cannot be used, or another service uses it.
    """
    async with (
        StateDirectory.open(config.state_dir, patience=config.takeover_timeout) as state,
        _workspaces(state, config) as workspaces,
    ):
        yield workspaces


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
async def open_in_process(config: ServiceConfig) -> AsyncIterator[Connects]:
    """Opens a service that is its program's alone, and yields what connects to it without a network.

    It serves no metrics and sends no spans: its program has its own telemetry, and there may be many such programs.
    """
    async with (
        open_workspaces(config) as workspaces,
        layers_of(config, workspaces, None, None, embedded=True) as layers,
    ):
        yield partial(InProcessConnection, workspaces, layers)


@nested
async def open_embedded() -> AsyncIterator[Connects]:
    """Opens an embedded service, as the environment has it."""
    # Whoever calls it is this program itself, which has nothing to prove.
    file = replace(await asyncio.to_thread(settings_of_environment), tokens=(), jwt=None, tls=None, tenants=Tenants())
    async with open_in_process(ServiceConfig(file=file)) as connects:
        yield connects


@nested
async def _workspaces(state: StateDirectory, config: ServiceConfig) -> AsyncIterator[Workspaces]:
    def local() -> Provider:
        from agentic_isolation_service.providers.local import LocalProvider

        return LocalProvider(state.path, sweep=state.temporary)

    def docker() -> Provider:
        from agentic_isolation_service.providers.docker import DockerProvider

        engine = config.docker
        return DockerProvider(
            engine.host,
            service_id=state.identity.service_id,
            default_image=engine.image,
            labels=engine.labels,
            dns=engine.dns,
        )

    makers = {"docker": docker, "local": local}
    async with (
        SqliteRegistry.open(None if state.temporary else state.path / "registry.db") as registry,
        Workspaces(
            {name: make for name, make in makers.items() if name in config.providers},
            registry,
            state.identity,
            lasting=not state.temporary,
            max_workspaces=config.max_workspaces,
            pools=config.file.pools,
            replica=Replica(config.replica),
            request_window=config.request_window,
            tenants=config.file.tenants,
            quotas=config.file.quotas,
        ) as workspaces,
    ):
        yield workspaces


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
        access = await unix_socket.check(path, access, group=config.socket_group, anywhere=anywhere)
    backlog = Backlog()
    async with layers_of(config, workspaces, authentication, backlog) as layers:
        # Nothing is waited for until it is started: gRPC never lets go of a server that was not.
        server = RpcServer(
            workspaces, layers, authentication=authentication, backlog=backlog, channelz=config.channelz
        )  # fmt: skip
        try:
            port = await server.start(address, certificates=certificates, access=access)
            for warning in warnings_of(config):
                _log.warning(warning)
            yield f"{address.rpartition(':')[0]}:{port}" if port else address
        finally:
            await server.stop(config.grace)
