"""What AgenticWorkspace does with commands: each way to run one, and what is done with those that run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import overload

from agentic_isolation import _convert_runs as run_convert
from agentic_isolation._lifecycle import Lifecycle
from agentic_isolation.interaction import ProcessInfo, TerminalSize
from agentic_isolation.jsonl import Parse, check_parse
from agentic_isolation.process import Process
from agentic_isolation.runs import ExecuteResult, Termination, command_of
from agentic_isolation.stream import JsonStream, OutputStream


class RunsCommands:
    """Runs commands in the workspace of a lifecycle."""

    _lifecycle: Lifecycle

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

        What a command that ends by itself leaves in the background runs on until the workspace ends. What that prints
        more than 200 ms later is lost; `start` with `detached` keeps it.

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
            ProcessLimitError: As many run as may, 80 in a container, and none has ended within 10 s.
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
        parse: Parse,
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
        parse: Parse | None = None,
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
        check_parse(parse)
        commands = self._lifecycle.commands
        parsed = command_of(command, timeout=timeout, cwd=cwd, env=env, stdin=stdin, redact_secrets=redact_secrets)
        stream = OutputStream if parse is None else JsonStream
        return stream(partial(commands.events, run_convert.command_to_pb(parsed)))

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
            take_input: Become the writer of its input also where somebody else is; not with read_only.
            observe: Neither keep it alive nor let it go on by reading; implies read_only.

        Raises:
            InvalidArgumentError: It is to read only, and to take the input.
            ProcessNotFoundError: There is none of that id, or it is no longer remembered.
            InputTakenError: Somebody else writes to it.
            OffsetError: So much has not been written yet.
        """
        return await self._lifecycle.commands.attach(
            process_id, offset, read_only=read_only or observe, take_input=take_input, observe=observe
        )

    async def processes(self) -> list[ProcessInfo]:
        """Returns the processes that were started in the workspace and are remembered, oldest first.

        They are remembered while they run and for the service's `request_window` (10 minutes) after, at most 1,024.

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
