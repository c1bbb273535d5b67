"""Providers used directly: the service's own methods called in this process, without gRPC between."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from agentic_isolation._connection import Connection
from agentic_isolation._retry import DEFAULT_RETRY_TIMEOUT, check_retry_timeout
from agentic_isolation._shared import Shared
from agentic_isolation.errors import InvalidArgumentError, WorkspaceNotFoundError
from agentic_isolation.models import ExecuteResult, FileInfo, SecurityConfig, WorkspaceConfig, WorkspaceInfo
from agentic_isolation.stream import OutputStream
from agentic_isolation.workspace import AgenticWorkspace
from agentic_isolation_service.app import open_workspaces
from agentic_isolation_service.config import DockerConfig, ServiceConfig
from agentic_isolation_service.rpc.in_process import InProcessConnection


class DirectProvider:
    """Makes workspaces in this process and renews their leases until they are destroyed.

    What it keeps open it opens with its first workspace and closes with its last. An engine or a guest that is away for
    a while is waited for, as by AgenticWorkspace.
    """

    name: str

    def __init__(
        self,
        service: ServiceConfig | None = None,
        security: SecurityConfig | None = None,
        retry_timeout: float = DEFAULT_RETRY_TIMEOUT,
    ) -> None:
        self._retry_timeout = check_retry_timeout(retry_timeout)
        self._shared = Shared(lambda: open_workspaces(service or ServiceConfig()))
        self._security = security
        self._open: dict[str, AgenticWorkspace] = {}

    async def create(self, config: WorkspaceConfig) -> WorkspaceInfo:
        """Makes a workspace. Cancelled, it leaves nothing behind.

        Raises:
            InvalidArgumentError, IsolationUnavailableError: What is asked for makes no sense, or cannot be had.
            ProviderUnavailableError: The provider cannot make workspaces.
        """
        if config.provider != self.name:
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
            WorkspaceNotFoundError: This provider has not made it, or has destroyed it.
        """
        found = self._open.get(workspace.id)
        if found is None:
            raise WorkspaceNotFoundError(f"there is no workspace {workspace.id!r}: this provider has destroyed it")
        return found

    async def destroy(self, workspace: WorkspaceInfo) -> None:
        """Kills everything in a workspace and removes it. May be called twice; goes on when cancelled."""
        found = self._open.get(workspace.id)
        if found is not None:
            await found.close()

    async def execute(
        self,
        workspace: WorkspaceInfo,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        output_limit: int | None = None,
    ) -> ExecuteResult:
        """Runs a command to its end; everything as AgenticWorkspace.execute."""
        return await self.workspace(workspace).execute(
            command, timeout=timeout, cwd=cwd, env=env, stdin=stdin, output_limit=output_limit
        )

    def stream(
        self,
        workspace: WorkspaceInfo,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
    ) -> OutputStream:
        """Runs a command and gives its output as it is printed; everything as AgenticWorkspace.stream."""
        return self.workspace(workspace).stream(command, timeout=timeout, cwd=cwd, env=env, stdin=stdin)

    async def describe(self, workspace: WorkspaceInfo) -> WorkspaceInfo:
        """Returns the workspace as it is now, with what it uses; everything as AgenticWorkspace.describe."""
        return await self.workspace(workspace).describe()

    async def write_file(
        self, workspace: WorkspaceInfo, path: str, content: str | bytes, *, mode: int | None = None
    ) -> FileInfo:
        """Writes a file; everything as AgenticWorkspace.write_file."""
        return await self.workspace(workspace).write_file(path, content, mode=mode)

    async def read_file(self, workspace: WorkspaceInfo, path: str) -> bytes:
        """Returns a file's content; everything as AgenticWorkspace.read_file."""
        return await self.workspace(workspace).read_file(path)

    async def file_exists(self, workspace: WorkspaceInfo, path: str) -> bool:
        """Returns whether anything has that path; everything as AgenticWorkspace.file_exists."""
        return await self.workspace(workspace).file_exists(path)

    @contextlib.asynccontextmanager
    async def _connected(self, at_its_end: contextlib.ExitStack) -> AsyncIterator[Connection]:
        with at_its_end:
            async with self._shared.use() as workspaces:
                connection = InProcessConnection(workspaces, self._retry_timeout)
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
        settings = DockerConfig.from_environment()
        settings = replace(settings, image=default_image or settings.image, host=host)
        super().__init__(ServiceConfig(docker=settings), security, retry_timeout)
