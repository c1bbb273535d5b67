"""Providers used directly: the service's own core without gRPC between."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from agentic_isolation._cleanup import finish
from agentic_isolation._lease import end, keep_renewed
from agentic_isolation._resume import ResumedEvents
from agentic_isolation._retry import (
    DEFAULT_RETRY_TIMEOUT,
    Patience,
    check_retry_timeout,
    linger_of,
    persevere,
    run_once,
)
from agentic_isolation._shared import Shared
from agentic_isolation.errors import (
    InvalidArgumentError,
    ProviderUnavailableError,
    WorkspaceFileNotFoundError,
    WorkspaceNotFoundError,
)
from agentic_isolation.models import (
    ExecuteResult,
    FileInfo,
    ProcessEvent,
    SecurityConfig,
    WorkspaceConfig,
    WorkspaceInfo,
    command_of,
)
from agentic_isolation.stream import OutputStream
from agentic_isolation_service.app import open_workspaces
from agentic_isolation_service.config import DockerConfig, ServiceConfig
from agentic_isolation_service.core import files, validation
from agentic_isolation_service.core.commands import Commands
from agentic_isolation_service.core.processes import OutputMode, ProcessStream
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.guest.session import GuestSession

_T = TypeVar("_T")


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
        self._open: dict[str, tuple[Workspaces, contextlib.AsyncExitStack]] = {}

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
        async with contextlib.AsyncExitStack() as resources:
            workspaces = await resources.enter_async_context(self._shared.use())
            config = config if config.security else replace(config, security=self._security)
            create = partial(workspaces.create, config, uuid.uuid4().hex)
            info = await persevere(create, self._patience(), at_once=(ProviderUnavailableError,))
            resources.push_async_callback(_destroy, workspaces, info.id)
            renewal = keep_renewed(config.lease, lambda: workspaces.get(info.id).renew())
            resources.push_async_callback(end, asyncio.create_task(renewal, name=f"renew:{info.id}"))
            self._open[info.id] = workspaces, resources.pop_all()
        return info

    async def destroy(self, workspace: WorkspaceInfo) -> None:
        """Kills everything in a workspace and removes it. May be called twice; goes on when cancelled."""
        found = self._open.pop(workspace.id, None)
        if found is not None:
            await finish(found[1].aclose())

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
        workspaces, request_id = self._opened(workspace), uuid.uuid4().hex
        run = partial(
            Commands(workspaces.get).execute,
            workspace.id,
            command_of(command, timeout=timeout, cwd=cwd, env=env, stdin=stdin),
            output_limit=validation.DEFAULT_OUTPUT_LIMIT if output_limit is None else output_limit,
            linger=linger_of(self._retry_timeout),
            request_id=request_id,
        )
        outcome = await run_once(run, self._patience(), self._kill(workspaces, workspace.id, request_id))
        return ExecuteResult.of(outcome.termination, outcome.stdout, outcome.stderr)

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
        workspaces = self._opened(workspace)
        parsed = command_of(command, timeout=timeout, cwd=cwd, env=env, stdin=stdin)

        def events(lines: bool) -> ResumedEvents:
            request_id = uuid.uuid4().hex
            start = partial(
                Commands(workspaces.get).stream,
                workspace.id,
                parsed,
                OutputMode(lines=lines),
                linger=linger_of(self._retry_timeout),
                request_id=request_id,
            )
            return ResumedEvents(
                lambda: _events(start),
                lambda process_id, offset: _events(
                    partial(Commands(workspaces.get).resume, workspace.id, process_id, offset)
                ),
                self._patience(),
                self._kill(workspaces, workspace.id, request_id),
            )

        return OutputStream(events)

    async def describe(self, workspace: WorkspaceInfo) -> WorkspaceInfo:
        """Returns the workspace as it is now, with what it uses; everything as AgenticWorkspace.describe."""
        return await self._opened(workspace).get(workspace.id).info_with_usage()

    async def write_file(
        self, workspace: WorkspaceInfo, path: str, content: str | bytes, *, mode: int | None = None
    ) -> FileInfo:
        """Writes a file; everything as AgenticWorkspace.write_file."""
        data = content.encode() if isinstance(content, str) else content

        async def write(session: GuestSession) -> FileInfo:
            async with await files.write(session, path, mode) as writer:
                await writer.write(data)
                return await writer.finish()

        return await self._persevere(workspace, write)

    async def read_file(self, workspace: WorkspaceInfo, path: str) -> bytes:
        """Returns a file's content; everything as AgenticWorkspace.read_file."""

        async def read(session: GuestSession) -> bytes:
            content = bytearray()
            async with await files.read(session, path, 0, None) as reader:
                await reader.info()
                async for data in reader.chunks():
                    content += data
            return bytes(content)

        return await self._persevere(workspace, read)

    async def file_exists(self, workspace: WorkspaceInfo, path: str) -> bool:
        """Returns whether anything has that path; everything as AgenticWorkspace.file_exists."""
        try:
            await self.stat_file(workspace, path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def stat_file(self, workspace: WorkspaceInfo, path: str) -> FileInfo:
        """Describes a file; everything as AgenticWorkspace.stat_file."""
        return await self._persevere(workspace, lambda session: files.stat(session, path))

    async def list_directory(self, workspace: WorkspaceInfo, path: str = ".") -> list[FileInfo]:
        """Returns a directory's entries; everything as AgenticWorkspace.list_directory."""
        entries: list[FileInfo] = []
        after = ""
        while True:
            list_page = partial(files.list_directory, path=path, limit=files.MAX_PAGE, after=after)
            page, after = await self._persevere(workspace, list_page)
            entries += page
            if not after:
                return entries

    async def make_directory(self, workspace: WorkspaceInfo, path: str, *, parents: bool = True) -> FileInfo:
        """Makes a directory; everything as AgenticWorkspace.make_directory."""
        make = partial(files.make_directory, path=path, parents=parents)
        return await (self._persevere(workspace, make) if parents else make(self._session(workspace)))

    async def remove_file(self, workspace: WorkspaceInfo, path: str, *, recursive: bool = False) -> None:
        """Removes a file or directory; everything as AgenticWorkspace.remove_file."""
        patience = self._patience()
        try:
            await persevere(lambda: files.remove(self._session(workspace), path, recursive=recursive), patience)
        except WorkspaceFileNotFoundError:
            if not patience.tried:
                raise

    def _opened(self, workspace: WorkspaceInfo) -> Workspaces:
        found = self._open.get(workspace.id)
        if found is None:
            raise WorkspaceNotFoundError(f"there is no workspace {workspace.id!r}: this provider has destroyed it")
        return found[0]

    async def _persevere(self, workspace: WorkspaceInfo, use: Callable[[GuestSession], Awaitable[_T]]) -> _T:
        return await persevere(lambda: use(self._session(workspace)), self._patience())

    def _patience(self) -> Patience:
        return Patience(self._retry_timeout)

    def _kill(self, workspaces: Workspaces, workspace_id: str, request_id: str) -> Callable[[], Awaitable[None]] | None:
        return (
            partial(Commands(workspaces.get).kill, workspace_id, request_id=request_id) if self._retry_timeout else None
        )

    def _session(self, workspace: WorkspaceInfo) -> GuestSession:
        return self._opened(workspace).get(workspace.id).session


async def _events(opening: Callable[[], Awaitable[ProcessStream]]) -> AsyncGenerator[ProcessEvent, None]:
    async with await opening() as stream:
        while event := await stream.next():
            yield event


async def _destroy(workspaces: Workspaces, workspace_id: str) -> None:
    with contextlib.suppress(WorkspaceNotFoundError):
        await workspaces.destroy(workspace_id)


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
