"""AgenticWorkspace: the way in for Python programs."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Literal, Self, overload

from agentic_isolation import _convert as convert
from agentic_isolation._files import Files
from agentic_isolation._lifecycle import Connect, Lifecycle, connected
from agentic_isolation._retry import DEFAULT_RETRY_TIMEOUT, check_retry_timeout
from agentic_isolation._target import service_at, target_or_default
from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.interaction import ProcessInfo, TerminalSize
from agentic_isolation.models import (
    ExecuteResult,
    FileInfo,
    ResourceLimits,
    SecurityConfig,
    Termination,
    WorkspaceConfig,
    WorkspaceInfo,
    command_of,
)
from agentic_isolation.process import Process
from agentic_isolation.service import ServiceClient
from agentic_isolation.stream import JsonStream, OutputStream
from agentic_isolation.v1 import workspace_pb2 as pb

_STREAMS: dict[str | None, type[OutputStream | JsonStream]] = {None: OutputStream, "jsonl": JsonStream}


class AgenticWorkspace:
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
        retry_timeout: Seconds for which calls bear with a service that cannot be reached; then they raise
            UnavailableError. 0: not at all; a command then dies with its connection.

        connect: Reaches a service that has no address, in place of one at `target`.

    Raises:
        InvalidArgumentError: The retry_timeout is negative, infinite or no number.
    """

    def __init__(
        self,
        config: WorkspaceConfig,
        *,
        target: str | None = None,
        retry_timeout: float = DEFAULT_RETRY_TIMEOUT,
        connect: Connect | None = None,
    ) -> None:
        self.config = config
        self._connect = connect or partial(connected, target_or_default(target), check_retry_timeout(retry_timeout))
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
        target: str | None = None,
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
            idle_timeout: Seconds after which it ends when nothing is under way in it; None: never.
            max_lifetime: Seconds after which it ends, however often its lease is renewed; None: no limit.
            target: The service's address, `host:port` or `unix:PATH`.
            retry_timeout: Seconds for which calls bear with a service that cannot be reached; 0: not at all.
        """
        config = WorkspaceConfig(
            provider=provider,
            image=image,
            working_dir=working_dir,
            environment=dict(environment or {}),
            security=security,
            limits=limits,
            labels=dict(labels or {}),
            lease=lease,
            idle_timeout=idle_timeout,
            max_lifetime=max_lifetime,
        )
        return cls(config, target=target, retry_timeout=retry_timeout)

    @classmethod
    def connect(
        cls, workspace_id: str, *, target: str | None = None, retry_timeout: float = DEFAULT_RETRY_TIMEOUT
    ) -> AgenticWorkspace:
        """Describes a workspace that is there; enter or await the result to use it.

        Closing it kills the commands that run through it and leaves the rest of the workspace as it is. Its lease is
        not renewed: that is its maker's.

        Args:
            workspace_id: Its id.
            target: The service's address, `host:port` or `unix:PATH`; None: AGENTIC_ISOLATION_TARGET.
            retry_timeout: Seconds for which calls bear with a service that cannot be reached; 0: not at all.

        Raises:
            WorkspaceNotFoundError: On entering: there is none of that id.
        """
        workspace = cls(WorkspaceConfig(), target=target, retry_timeout=retry_timeout)
        workspace._lifecycle = Lifecycle(workspace._connect, workspace_id)
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

    async def execute(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        output_limit: int | None = None,
        redact_secrets: bool = False,
    ) -> ExecuteResult:
        """Runs a command to its end.

        Cancelled, it kills the command's whole process tree. It goes on when the connection breaks or the service is
        started anew, and the command runs once.

        Args:
            command: A line for `/bin/sh -c`, or a program with its arguments.
            timeout: Seconds until the whole process tree is killed; the result is then `timed_out`.
            cwd: Absolute path; None: the workspace's working_dir.
            env: Laid over the workspace's environment.
            stdin: Standard input; None: empty.
            output_limit: Bytes to keep of each of stdout and stderr, at most 16 MiB; None: 1 MiB. Of more, head and
                tail are kept and the result is `truncated`.
            redact_secrets: Put `***` in place of the workspace's secrets in its output.

        Raises:
            InvalidArgumentError: Something about the command makes no sense; the error names it.
            StartError: It could not start: no such program, not executable, no such directory.
            WorkspaceNotFoundError, WorkspaceLostError: The workspace is gone.
            UnavailableError: The service cannot be reached; the command dies after retry_timeout.
            ResultForgottenError: It is over, and its result was forgotten while the service could not be reached.
        """
        parsed = command_of(command, timeout=timeout, cwd=cwd, env=env, stdin=stdin, redact_secrets=redact_secrets)
        return await self._lifecycle.commands.execute(parsed, output_limit)

    @overload
    def stream(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        redact_secrets: bool = False,
        parse: None = None,
    ) -> OutputStream: ...

    @overload
    def stream(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        redact_secrets: bool = False,
        parse: Literal["jsonl"],
    ) -> JsonStream: ...

    def stream(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        redact_secrets: bool = False,
        parse: Literal["jsonl"] | None = None,
    ) -> OutputStream | JsonStream:
        """Runs a command and gives its output as it is printed: iterate over the result for stdout's lines.

        The command starts with the first step. Its process tree is killed when iteration is left or cancelled. When the
        connection breaks, or the service is started anew, output goes on where it was.

        Args:
            command: A line for `/bin/sh -c`, or a program with its arguments.
            timeout: Seconds until the whole process tree is killed.
            cwd: Absolute path; None: the workspace's working_dir.
            env: Laid over the workspace's environment.
            stdin: Standard input; None: empty.
            redact_secrets: Put `***` in place of the workspace's secrets in its output.
            parse: "jsonl": lines come as JsonLine, each with the JSON document that it is, if it is one; None: as text.

        Raises:
            InvalidArgumentError: There is no such way to parse.
            ProcessNotFoundError, OffsetError: While iterating: the command, or that much of its output, was forgotten
                while the service could not be reached.
            IsolationError: While iterating, as `execute`.
        """
        if parse not in _STREAMS:
            raise InvalidArgumentError(
                f"{parse!r} is no way to parse lines; use 'jsonl', or None for text", field="parse"
            )
        commands = self._lifecycle.commands
        parsed = command_of(command, timeout=timeout, cwd=cwd, env=env, stdin=stdin, redact_secrets=redact_secrets)
        return _STREAMS[parse](partial(commands.events, convert.command_to_pb(parsed)))

    async def start(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        terminal: TerminalSize | None = None,
        detached: bool = False,
        redact_secrets: bool = False,
    ) -> Process:
        """Starts a command to be interacted with, and returns when it runs. Cancelled, it leaves nothing running.

        Args:
            command: A line for `/bin/sh -c`, or a program with its arguments.
            cwd: Absolute path; None: the workspace's working_dir.
            env: Laid over the workspace's environment.
            timeout: Seconds until the whole process tree is killed.
            terminal: Run it in a pseudo-terminal of this size, to which all its output goes; None: in plain pipes.
            detached: It lives until the workspace ends, whoever reads it; the oldest output is lost when nobody does.
            redact_secrets: Put `***` in place of the workspace's secrets in its output.

        Raises:
            IsolationError: As `execute`.
        """
        parsed = command_of(command, timeout=timeout, cwd=cwd, env=env, redact_secrets=redact_secrets)
        return await self._lifecycle.commands.start(parsed, terminal=terminal, detached=detached)

    async def attach(
        self,
        process_id: str,
        *,
        offset: int = 0,
        read_only: bool = False,
        take_input: bool = False,
        observe: bool = False,
    ) -> Process:
        """Attaches to a process that was started before, by this program or another one.

        Args:
            process_id: Its id.
            offset: First byte of its output wanted; what is not there any more is told by a Gap.
            read_only: Only read; needed for processes that were not made by `start`.
            take_input: Become the writer of its input also where somebody else is.
            observe: Neither keep it alive nor let it go on by reading; implies read_only.

        Raises:
            ProcessNotFoundError: There is none of that id, or it is no longer remembered.
            InputTakenError: Somebody else writes to it.
            OffsetError: So much has not been written yet.
        """
        return await self._lifecycle.commands.attach(
            process_id, offset, read_only=read_only or observe, take_input=take_input, observe=observe
        )

    async def processes(self) -> list[ProcessInfo]:
        """Returns the processes that were started in the workspace and are remembered, oldest first.

        Raises:
            IsolationError: The workspace is gone or cannot be reached.
        """
        return await self._lifecycle.commands.list()

    async def wait(self, process_id: str) -> Termination:
        """Waits for the end of a process and returns how it ended. It neither reads the process nor keeps it alive.

        Raises:
            ProcessNotFoundError: There is none of that id, or it is no longer remembered.
        """
        return await self._lifecycle.commands.wait(process_id)

    async def signal(self, process_id: str, number: int, *, tree: bool = False) -> None:
        """Sends a signal to a process.

        Args:
            process_id: Its id.
            number: The signal, 1 to 64.
            tree: To every process of its tree; SIGKILL returns when nothing of it is left. Otherwise to the foreground
                of its terminal, and to the command where it has none.

        Raises:
            ProcessNotFoundError: There is none of that id, or it is no longer remembered.
        """
        await self._lifecycle.commands.signal(process_id, number, tree=tree)

    async def describe(self) -> WorkspaceInfo:
        """Returns the workspace as it is now: its state, its lease, and what it uses.

        Raises:
            WorkspaceNotFoundError: It was destroyed, or its lease has run out.
            UnavailableError: The service cannot be reached.
        """
        connection = self._lifecycle.connection
        response = await connection.call(connection.stub.GetWorkspace, pb.GetWorkspaceRequest(workspace_id=self.id))
        return convert.workspace_from_pb(response.workspace)

    async def write_file(self, path: str, content: str | bytes, *, mode: int | None = None) -> FileInfo:
        """Writes a file atomically: readers see the old content or the whole of the new. Missing parents are made.

        Args:
            path: Absolute, or relative to the working_dir.
            content: Bytes, or text that is written as UTF-8.
            mode: Permission bits; None: those of the file that is replaced, else 0o644.

        Raises:
            FileError, PathEscapesError: The file cannot be written, or leads out of the workspace.
        """
        data = content.encode() if isinstance(content, str) else content
        return await self._opened_files().write(path, data, mode)

    async def read_file(self, path: str) -> bytes:
        """Returns a file's content.

        Raises:
            WorkspaceFileNotFoundError: It is not there (also a FileNotFoundError).
            FileError, PathEscapesError: It cannot be read, or leads out of the workspace.
        """
        return await self._opened_files().read(path)

    async def file_exists(self, path: str) -> bool:
        """Returns whether anything has that path.

        Raises:
            FileError, PathEscapesError: It cannot be looked at, or leads out of the workspace.
        """
        try:
            await self.stat_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def stat_file(self, path: str) -> FileInfo:
        """Describes a file or directory.

        Raises:
            FileError, PathEscapesError: It is not there, or leads out of the workspace.
        """
        return await self._opened_files().stat(path)

    async def list_directory(self, path: str = ".") -> list[FileInfo]:
        """Returns a directory's entries, sorted by name.

        Raises:
            FileError, PathEscapesError: It is no directory, or leads out of the workspace.
        """
        return await self._opened_files().list(path)

    async def make_directory(self, path: str, *, parents: bool = True) -> FileInfo:
        """Makes a directory; with `parents` missing ones are made, and one that is there is fine.

        Raises:
            FileError, PathEscapesError: It cannot be made, or leads out of the workspace.
        """
        return await self._opened_files().make_directory(path, parents=parents)

    async def remove_file(self, path: str, *, recursive: bool = False) -> None:
        """Removes a file, a symlink itself, or a directory; with `recursive` all that it holds.

        Raises:
            FileError, PathEscapesError: It cannot be removed, or leads out of the workspace.
        """
        await self._opened_files().remove(path, recursive=recursive)

    async def close(self) -> None:
        """Kills everything in the workspace and removes it. May be called twice; goes on when cancelled."""
        await self._lifecycle.close()

    def _opened_files(self) -> Files:
        return Files(self._lifecycle.connection, self.id)

    # The last one: to type checkers `list` is this from here on.
    @classmethod
    async def list(
        cls,
        labels: Mapping[str, str] | None = None,
        *,
        target: str | None = None,
        retry_timeout: float = DEFAULT_RETRY_TIMEOUT,
    ) -> list[WorkspaceInfo]:
        """Returns the workspaces of a service, oldest first; each can be used by `connect` with its id.

        Without a `target`, and without AGENTIC_ISOLATION_TARGET, they are those of this event loop's embedded service.

        Args:
            labels: Only those that have all of these.
            target: The service's address, `host:port` or `unix:PATH`; None: AGENTIC_ISOLATION_TARGET.
            retry_timeout: Seconds for which calls bear with a service that cannot be reached; 0: not at all.

        Raises:
            InvalidArgumentError: The retry_timeout is negative, infinite or no number.
            UnavailableError: The service cannot be reached.
        """
        async with (
            service_at(target_or_default(target)) as address,
            ServiceClient(address, retry_timeout=retry_timeout) as service,
        ):
            return [workspace async for workspace in service.list_workspaces(labels)]
