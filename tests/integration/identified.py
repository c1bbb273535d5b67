"""A service in this process that asks who calls, and tells the test whom it took its callers for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from agentic_isolation_service.app import open_workspaces
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.caller import Caller
from agentic_isolation_service.identities import authentication_of, certificates_of
from agentic_isolation_service.rpc.authentication.layer import Authentication, administrator
from agentic_isolation_service.rpc.calls import Call, current_caller
from agentic_isolation_service.rpc.server import RpcServer
from agentic_isolation_service.rpc.unix_socket import SocketAccess


@dataclass(slots=True)
class Identified:
    """The service."""

    target: str = ""
    callers: list[Caller] = field(default_factory=list)
    """Whoever has made a call that was let in, each time."""

    @property
    def identities(self) -> set[str]:
        return {caller.identity for caller in self.callers}

    @contextlib.asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        assert call.caller is current_caller()
        self.callers.append(call.caller)
        yield


@contextlib.asynccontextmanager
async def identified(
    config: ServiceConfig,
    resolve: Callable[[str], Caller] = administrator,
    *,
    authentication: Authentication | None = None,
) -> AsyncIterator[Identified]:
    """Runs a service by its settings, or with what finds out who calls in place of the one that these make."""
    service = Identified()
    authentication = authentication or await asyncio.to_thread(authentication_of, config, resolve)
    assert authentication is not None
    certificates = await asyncio.to_thread(certificates_of, config)
    async with open_workspaces(config) as workspaces:
        server = RpcServer(workspaces, [authentication, service], authentication=authentication)
        try:
            access = SocketAccess(mode=config.socket_mode)
            port = await server.start(
                config.address, certificates=certificates, access=access, ask_users=config.file.unix is not None
            )
            service.target = f"127.0.0.1:{port}" if port else config.address
            yield service
        finally:
            await server.stop(0)
