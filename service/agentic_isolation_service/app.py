"""The composition root: the only place that knows which providers there are. Each is loaded when it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

from agentic_isolation._connection import Connects
from agentic_isolation._nested import nested
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.policy import ANYTHING
from agentic_isolation_service.core.ports import Provider
from agentic_isolation_service.core.replicas import Replica
from agentic_isolation_service.core.tenants import Tenants
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.registry import SqliteRegistry
from agentic_isolation_service.rpc.call_logs import AccessLog
from agentic_isolation_service.rpc.calls import Layer
from agentic_isolation_service.rpc.in_process import InProcessConnection
from agentic_isolation_service.rpc.quotas import QuotaLayer
from agentic_isolation_service.settings.file import settings_of_environment
from agentic_isolation_service.state import StateDirectory


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


@nested
async def open_in_process(config: ServiceConfig) -> AsyncIterator[Connects]:
    """Opens a service that is its program's alone, and yields what connects to it without a network.

    It serves no metrics, sends no spans and audits nothing: its program has its own telemetry, and there may be many
    such programs.
    """
    layers: list[Layer] = []
    if AccessLog.is_wanted():
        layers.append(AccessLog())
    if config.file.quotas.bound_anything:
        layers.append(QuotaLayer(config.file.quotas))
    # Whoever calls it is this program itself, which has nothing to prove.
    file = replace(config.file, tokens=(), jwt=None, tls=None, tenants=Tenants(others=ANYTHING))
    async with open_workspaces(replace(config, file=file)) as workspaces:
        yield partial(InProcessConnection, workspaces, layers)


@nested
async def open_embedded() -> AsyncIterator[Connects]:
    """Opens an embedded service, as the environment has it."""
    file = await asyncio.to_thread(settings_of_environment)
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
