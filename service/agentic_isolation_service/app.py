"""The composition root: the only place that knows which providers there are. Each is loaded when it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.config_file import pools_of_environment
from agentic_isolation_service.core.ports import Provider
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.registry import SqliteRegistry
from agentic_isolation_service.rpc.server import RpcServer
from agentic_isolation_service.state import StateDirectory

_EMBEDDED_GRACE = 1.0
"""Seconds for calls that their own program has just cancelled to end."""


@contextlib.asynccontextmanager
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
        OSError: The state directory or the address cannot be used.
    """
    async with (
        open_workspaces(config) as workspaces,
        _listening(workspaces, config.address, config.grace) as address,
    ):
        yield address


@contextlib.asynccontextmanager
async def serve_embedded() -> AsyncIterator[str]:
    """Runs a service on a unix socket in a private temporary directory and yields its address."""
    config = ServiceConfig(pools=await asyncio.to_thread(pools_of_environment))
    async with (
        StateDirectory.open(None) as state,
        _workspaces(state, config) as workspaces,
        _listening(workspaces, f"unix:{state.path / 'grpc.sock'}", grace=_EMBEDDED_GRACE) as address,
    ):
        yield address


@contextlib.asynccontextmanager
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

    async with (
        SqliteRegistry.open(None if state.temporary else state.path / "registry.db") as registry,
        Workspaces(
            {"docker": docker, "local": local},
            registry,
            state.identity,
            lasting=not state.temporary,
            max_workspaces=config.max_workspaces,
            pools=config.pools,
            request_window=config.request_window,
        ) as workspaces,
    ):
        yield workspaces


@contextlib.asynccontextmanager
async def _listening(workspaces: Workspaces, address: str, grace: float) -> AsyncIterator[str]:
    server = RpcServer(workspaces)
    try:
        port = await server.start(address)
        yield f"{address.rpartition(':')[0]}:{port}" if port else address
    finally:
        await server.stop(grace)
