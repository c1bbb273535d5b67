"""AgenticWorkspace: the way in for Python programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from agentic_isolation import _convert as convert
from agentic_isolation._lifecycle import Connect, Lifecycle
from agentic_isolation._retry import DEFAULT_RETRY_TIMEOUT, check_retry_timeout
from agentic_isolation._running import RunsCommands
from agentic_isolation._target import connected, target_or_default
from agentic_isolation._wire import check_mapping, check_series, check_text, check_type
from agentic_isolation.credentials import Credentials
from agentic_isolation.files import Files
from agentic_isolation.models import FileInfo, Mount, ResourceLimits, SecurityConfig, WorkspaceConfig, WorkspaceInfo
from agentic_isolation.service import ServiceCalls
from agentic_isolation.transfer import TransferProgress, TransferSummary
from agentic_isolation.v1 import workspace_pb2 as pb

if TYPE_CHECKING:
    from agentic_isolation._transfers import Transfers


class AgenticWorkspace(RunsCommands):
    """A workspace of its own for an agent: commands run in it, files lie in it, and it goes away when it is closed.

    Use it in either way; both make the workspace and see to its lease:

        async with AgenticWorkspace.create(provider="docker") as ws:
            result = await ws.execute("python3 script.py")

        ws = await AgenticWorkspace.create(provider="docker")
        ...
        await ws.close()

    Without a `target`, and without AGENTIC_ISOLATION_TARGET, the service runs embedded in this process.

    A service that is away for a while, or a connection that breaks, is waited for: what was under way goes on, and no
    command runs twice. Commands of a program that was killed live on for that time, and then die.

    Args:
        config: How to make it.
        target: The service's address, `host:port` or `unix:PATH`.
        credentials: For that service; None: those of the environment.
        retry_timeout: Seconds for which calls bear with a service that cannot be reached; then they raise
            UnavailableError. 0: not at all; a command then dies with its connection.
        connect: Reaches a service that has no address, in place of one at `target`.

    Raises:
        InvalidArgumentError: The retry_timeout is negative, infinite or no number, or something is of another type.
    """

    def __init__(
        self,
        config: WorkspaceConfig,
        *,
        target: str | None = None,
        credentials: Credentials | None = None,
        retry_timeout: float = DEFAULT_RETRY_TIMEOUT,
        connect: Connect | None = None,
    ) -> None:
        self.config = check_type(config, "config", WorkspaceConfig)
        if credentials is not None:
            check_type(credentials, "credentials", Credentials)
        self._connect = connect or partial(
            connected, target_or_default(target), check_retry_timeout(retry_timeout), credentials
        )
        self._lifecycle = Lifecycle(self._connect, config)

    @classmethod
    def create(
        cls,
        provider: str = "docker",
        image: str | None = None,
        working_dir: str = "/workspace",
        environment: Mapping[str, str] | None = None,
        security: SecurityConfig | None = None,
        *,
        limits: ResourceLimits | None = None,
        labels: Mapping[str, str] | None = None,
        lease: float = 300.0,
        idle_timeout: float | None = None,
        max_lifetime: float | None = None,
        secrets: Mapping[str, str] | None = None,
        mounts: Sequence[Mount] = (),
        target: str | None = None,
        credentials: Credentials | None = None,
        retry_timeout: float = DEFAULT_RETRY_TIMEOUT,
    ) -> AgenticWorkspace:
        """Describes a workspace; enter or await the result to make it.

        Args:
            provider: "docker", or "local" for a plain directory without isolation.
            image: Image for the docker provider; None: the service's default.
            working_dir: Absolute path of the directory that commands start in.
            environment: Environment of every command.
            security: Protections; None: production, as far as the provider goes.
            limits: Limits; None: the service's defaults.
            labels: For finding it again.
            lease: Seconds after which it ends by itself when this program is gone; renewed in the background.
            idle_timeout: Seconds after which it ends when nothing is under way in it; None: never. What a command that
                has ended left in the background does not count.
            max_lifetime: Seconds after which it ends, however often its lease is renewed; None: no limit.
            secrets: Environment of every command that is given to processes only: it is in nothing that the engine
                tells of the workspace, in no log, listing or repr. `redact_secrets` of a command hides the values in
                its output.
            mounts: Paths of the engine's host that it has, as far as the service allows.
            target: The service's address, `host:port` or `unix:PATH`.
            credentials: For that service; None: those of the environment.
            retry_timeout: Seconds for which calls bear with a service that cannot be reached; 0: not at all.

        Raises:
            InvalidArgumentError: Something is of another type; other values are checked when it is made.
        """
        config = WorkspaceConfig(
            provider=provider,
            image=image,
            working_dir=working_dir,
            environment=dict(check_mapping(environment or {}, "environment")),
            security=security,
            limits=limits,
            labels=dict(check_mapping(labels or {}, "labels")),
            lease=lease,
            idle_timeout=idle_timeout,
            max_lifetime=max_lifetime,
            secrets=dict(check_mapping(secrets or {}, "secrets")),
            mounts=tuple(check_series(mounts, "mounts", "Mount")),
        )
        return cls(config, target=target, credentials=credentials, retry_timeout=retry_timeout)

    @classmethod
    def connect(
        cls,
        workspace_id: str,
        *,
        target: str | None = None,
        credentials: Credentials | None = None,
        retry_timeout: float = DEFAULT_RETRY_TIMEOUT,
    ) -> AgenticWorkspace:
        """Describes a workspace that is there; enter or await the result to use it.

        Closing it kills the commands that run through it and leaves the rest of the workspace as it is. Its lease is
        not renewed: that is its maker's.

        Args:
            workspace_id: Its id.
            target: The service's address, `host:port` or `unix:PATH`; None: AGENTIC_ISOLATION_TARGET.
            credentials: For that service; None: those of the environment.
            retry_timeout: Seconds for which calls bear with a service that cannot be reached; 0: not at all.

        Raises:
            InvalidArgumentError: The id is no text.
            WorkspaceNotFoundError: On entering: there is none of that id.
        """
        workspace = cls(WorkspaceConfig(), target=target, credentials=credentials, retry_timeout=retry_timeout)
        workspace._lifecycle = Lifecycle(workspace._connect, check_text(workspace_id, "workspace_id"))
        return workspace

    def __await__(self) -> Generator[object, None, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        await self._lifecycle.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def id(self) -> str:
        """The workspace's id on its service."""
        return self.info.id

    @property
    def info(self) -> WorkspaceInfo:
        """The workspace as it was made; its `isolation` is what is in force.

        Raises:
            ClosedError: It was not opened.
        """
        return self._lifecycle.info

    async def describe(self) -> WorkspaceInfo:
        """Returns the workspace as it is now: its state, its lease, and what it uses.

        Raises:
            WorkspaceNotFoundError: It was destroyed, or its lease has run out.
            UnavailableError: The service cannot be reached.
        """
        connection = self._lifecycle.connection
        response = await connection.call(connection.stub.GetWorkspace, pb.GetWorkspaceRequest(workspace_id=self.id))
        return convert.workspace_from_pb(response.workspace)

    @property
    def files(self) -> Files:
        """The files in the workspace.

        Raises:
            ClosedError: It is not open.
        """
        return Files(self._lifecycle.connection, self.id)

    async def write_file(
        self, path: str, content: str | bytes | bytearray | memoryview, *, mode: int | None = None
    ) -> FileInfo:
        """Writes a file; as Files.write."""
        return await self.files.write(path, content, mode=mode)

    async def read_file(self, path: str) -> bytes:
        """Returns a file's content; as Files.read."""
        return await self.files.read(path)

    async def file_exists(self, path: str) -> bool:
        """Returns whether anything has that path; as Files.exists."""
        return await self.files.exists(path)

    async def upload(
        self,
        local: str | os.PathLike[str],
        remote: str | None = None,
        *,
        ignore: Sequence[str] = (),
        progress: Callable[[TransferProgress], object] | None = None,
    ) -> TransferSummary:
        """Copies a file, or all that lies in a directory, from this machine into the workspace.

        Each file appears as a whole or not at all. Permission bits are kept, in directories times too; symlinks stay
        symlinks; devices, pipes and sockets are left out and counted. The content of a single file is verified.

        Args:
            local: The file or directory.
            remote: The path of the file, or of the directory that takes what lies in `local`, made if missing; None:
                the name of `local`. One that ends in "/" is the directory of the file.
            ignore: What to leave out of a directory, in the syntax of gitignore(5).
            progress: Is told how far it is, in the event loop, some twenty times a second.

        Raises:
            OSError: Something cannot be read here; of a single file NotARegularFileError, where it is none.
            FileError, PathEscapesError: Something cannot be written there (FileError is an OSError, too).
            ContentMismatchError: What arrived is not what was sent.
        """
        return await self._transfers().upload(local, remote, ignore, progress)

    async def download(
        self,
        remote: str,
        local: str | os.PathLike[str] | None = None,
        *,
        ignore: Sequence[str] = (),
        progress: Callable[[TransferProgress], object] | None = None,
    ) -> TransferSummary:
        """Copies a file, or all that lies in a directory, from the workspace to this machine.

        The workspace is not trusted: nothing is written outside of `local`, and symlinks there are not followed. Those
        that may lead out (absolute ones, and such that go up but at their beginning) are left out and counted. What is
        there is merged with: files are replaced. Permission bits are kept as far as the umask allows, and the owner has
        access to every directory. Otherwise as `upload`, the other way round.

        Args:
            remote: The file or directory.
            local: The path of the file, or the directory that takes what lies in `remote`, made if missing; None: the
                name of `remote`, in the current directory.
            ignore: What to leave out of a directory, in the syntax of gitignore(5).
            progress: Is told how far it is.

        Raises:
            OSError: Something cannot be written here; NotARegularFileError where it would replace a device, a pipe or a
                socket.
            FileError, PathEscapesError: Something cannot be read there.
            BadArchiveError, ContentMismatchError: What arrived is not what was sent.
        """
        return await self._transfers().download(remote, local, ignore, progress)

    async def close(self) -> None:
        """Kills everything in the workspace and removes it. Goes on when cancelled.

        May be called twice: who calls while somebody closes it waits for that. One that is being opened is not opened.
        """
        await self._lifecycle.close()

    def _transfers(self) -> Transfers:
        from agentic_isolation._transfers import Transfers

        return Transfers(self._lifecycle.connection, self.id)

    # The last one: to type checkers `list` is this from here on.
    @classmethod
    async def list(
        cls,
        labels: Mapping[str, str] | None = None,
        *,
        target: str | None = None,
        credentials: Credentials | None = None,
        retry_timeout: float = DEFAULT_RETRY_TIMEOUT,
    ) -> list[WorkspaceInfo]:
        """Returns the workspaces of a service, oldest first; each can be used by `connect` with its id.

        Without a `target`, and without AGENTIC_ISOLATION_TARGET, they are those of this event loop's embedded service.

        Args:
            labels: Only those that have all of these.
            target: The service's address, `host:port` or `unix:PATH`; None: AGENTIC_ISOLATION_TARGET.
            credentials: For that service; None: those of the environment.
            retry_timeout: Seconds for which calls bear with a service that cannot be reached; 0: not at all.

        Raises:
            InvalidArgumentError: The retry_timeout is negative, infinite or no number.
            UnavailableError: The service cannot be reached.
        """
        async with connected(target_or_default(target), retry_timeout, credentials) as connection:
            return [workspace async for workspace in ServiceCalls(connection).list_workspaces(labels)]
