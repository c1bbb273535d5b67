"""Providers used directly: the service's own methods called in this process, without gRPC between."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from agentic_isolation._connection import Connection
from agentic_isolation._retry import DEFAULT_RETRY_TIMEOUT, check_retry_timeout
from agentic_isolation._shared import Shared
from agentic_isolation._wire import check_text, check_type
from agentic_isolation.errors import InvalidArgumentError, WorkspaceNotFoundError
from agentic_isolation.models import SecurityConfig, WorkspaceConfig, WorkspaceInfo
from agentic_isolation.workspace import AgenticWorkspace
from agentic_isolation_service.app import open_in_process
from agentic_isolation_service.config import DockerConfig, ServiceConfig

_P = ParamSpec("_P")
_R = TypeVar("_R")
_F = TypeVar("_F", bound=Callable[..., object])


def _forwarded(
    method: Callable[Concatenate[AgenticWorkspace, _P], Awaitable[_R]],
) -> Callable[Concatenate[DirectProvider, WorkspaceInfo, _P], Coroutine[Any, Any, _R]]:
    """Returns the method of a provider that takes a workspace first and is otherwise the workspace's."""

    async def call(self: DirectProvider, workspace: WorkspaceInfo, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return await method(self.workspace(workspace), *args, **kwargs)

    return _described(call, method)


def _forwarded_at_once(
    method: Callable[Concatenate[AgenticWorkspace, _P], _R],
) -> Callable[Concatenate[DirectProvider, WorkspaceInfo, _P], _R]:
    """Returns such a method of one that does not wait."""

    def call(self: DirectProvider, workspace: WorkspaceInfo, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return method(self.workspace(workspace), *args, **kwargs)

    return _described(call, method)


def _described(call: _F, method: Callable[..., object]) -> _F:
    """Gives `call` the words and the arguments of `method`, with the workspace before them."""
    signature = inspect.signature(method)
    own, workspace, *_ = inspect.signature(call).parameters.values()
    _, *others = signature.parameters.values()
    functools.update_wrapper(call, method)
    vars(call)["__signature__"] = signature.replace(parameters=[own, workspace, *others])
    return call


class DirectProvider:
    """Makes workspaces in this process and renews their leases until they are destroyed.

    What is done with a workspace is a method that takes it first, and is otherwise AgenticWorkspace's of that name.

    What it keeps open it opens with its first workspace and closes with its last. Meanwhile it is one event
    loop's, and raises RuntimeError on others. An engine or a guest that is away for a while is waited for, as by
    AgenticWorkspace.
    """

    name: str

    def __init__(
        self,
        service: ServiceConfig | None = None,
        security: SecurityConfig | None = None,
        retry_timeout: float = DEFAULT_RETRY_TIMEOUT,
    ) -> None:
        self._retry_timeout = check_retry_timeout(retry_timeout)
        self._shared = Shared(lambda: open_in_process(service or ServiceConfig()))
        self._security = security
        self._open: dict[str, AgenticWorkspace] = {}

    async def create(self, config: WorkspaceConfig) -> WorkspaceInfo:
        """Makes a workspace. Cancelled, it leaves nothing behind.

        Raises:
            InvalidArgumentError, IsolationUnavailableError: What is asked for makes no sense, or cannot be had.
            ProviderUnavailableError: The provider cannot make workspaces.
        """
        if check_type(config, "config", WorkspaceConfig).provider != self.name:
            raise InvalidArgumentError(
                f"{config.provider!r} is not this provider, which is {self.name!r}", field="provider"
            )
        config = config if config.security else replace(config, security=self._security)
        at_its_end = contextlib.ExitStack()
        workspace = await AgenticWorkspace(config, connect=partial(self._connected, at_its_end))
        self._open[workspace.id] = workspace
        at_its_end.callback(self._open.pop, workspace.id, None)
        return workspace.info

    def workspace(self, workspace: WorkspaceInfo) -> AgenticWorkspace:
        """Returns a workspace with the methods that it has through a service. Its `close` and `destroy` are one.

        Raises:
            InvalidArgumentError: It is no WorkspaceInfo.
            WorkspaceNotFoundError: This provider has not made it, or has destroyed it.
        """
        found = self._found(workspace)
        if found is None:
            raise WorkspaceNotFoundError(f"there is no workspace {workspace.id!r}: this provider has destroyed it")
        return found

    async def destroy(self, workspace: WorkspaceInfo) -> None:
        """Kills everything in a workspace and removes it. May be called twice; goes on when cancelled."""
        found = self._found(workspace)
        if found is not None:
            await found.close()

    execute = _forwarded(AgenticWorkspace.execute)
    """Runs a command in a workspace to its end."""
    stream = _forwarded_at_once(AgenticWorkspace.stream)
    """Runs a command in a workspace and gives its output as it is printed."""
    describe = _forwarded(AgenticWorkspace.describe)
    """Returns a workspace as it is now, with what it uses."""
    write_file = _forwarded(AgenticWorkspace.write_file)
    """Writes a file in a workspace."""
    read_file = _forwarded(AgenticWorkspace.read_file)
    """Returns the content of a file in a workspace."""
    file_exists = _forwarded(AgenticWorkspace.file_exists)
    """Returns whether anything in a workspace has a path."""

    def _found(self, workspace: WorkspaceInfo) -> AgenticWorkspace | None:
        return self._open.get(check_type(workspace, "workspace", WorkspaceInfo).id)

    @contextlib.asynccontextmanager
    async def _connected(self, at_its_end: contextlib.ExitStack) -> AsyncIterator[Connection]:
        with at_its_end:
            async with self._shared.use() as connects:
                connection = connects(self._retry_timeout)
                try:
                    yield connection
                finally:
                    await connection.aclose()


class WorkspaceLocalProvider(DirectProvider):
    """Workspaces that are plain directories of this host, without isolation. For development and tests.

    Args:
        retry_timeout: Seconds for which calls bear with a workspace that does not answer; 0: not at all.
    """

    name = "local"

    def __init__(self, *, retry_timeout: float = DEFAULT_RETRY_TIMEOUT) -> None:
        super().__init__(retry_timeout=retry_timeout)


class WorkspaceDockerProvider(DirectProvider):
    """Workspaces that are hardened containers of a Docker Engine.

    Args:
        default_image: Image of workspaces that name none; None: "python:3.12-slim".
        security: Protections of workspaces that name none; None: production.
        host: The engine, as DOCKER_HOST spells it; None: DOCKER_HOST, else the standard socket.
        retry_timeout: Seconds for which calls bear with an engine or workspace that does not answer; 0: not at all.
    """

    name = "docker"

    def __init__(
        self,
        default_image: str | None = None,
        security: SecurityConfig | None = None,
        *,
        host: str | None = None,
        retry_timeout: float = DEFAULT_RETRY_TIMEOUT,
    ) -> None:
        for value, name in ((default_image, "default_image"), (host, "host")):
            if value is not None:
                check_text(value, name)
        settings = DockerConfig.from_environment()
        settings = replace(settings, image=default_image or settings.image, host=host)
        super().__init__(ServiceConfig(docker=settings), security, retry_timeout)
