"""The commands of a service's workspaces: run, read, interacted with, listed, signalled."""

from __future__ import annotations

import signal as signals
from collections.abc import Callable, Mapping

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.interaction import ProcessInfo, TerminalSize
from agentic_isolation.runs import Command, Termination
from agentic_isolation_service.core import control, processes, validation
from agentic_isolation_service.core.attachment import Attachment
from agentic_isolation_service.core.processes import Interaction, Outcome, OutputMode, ProcessRun, ProcessStream
from agentic_isolation_service.core.workspace import HeldWorkspace


class Commands:
    """Runs commands in workspaces. What is wrong with one is said before anything of it has begun.

    Args:
        find: Returns the workspace of an id, of whoever asks. Raises WorkspaceNotFoundError where there is none.
        trace: Returns the variables that tell a command which trace it belongs to.
    """

    def __init__(
        self, find: Callable[[str], HeldWorkspace], *, trace: Callable[[], Mapping[str, str]] = dict[str, str]
    ) -> None:
        self._find = find
        self._trace = trace

    async def execute(
        self, workspace_id: str, command: Command, *, output_limit: int, linger: float = 0, request_id: str = ""
    ) -> Outcome:
        """Runs a command to its end; see processes.execute.

        Args:
            workspace_id: Where.
            command: What.
            output_limit: How many bytes of each of stdout and stderr to keep.
            linger: Seconds that the process lives when the call was cancelled, to be joined by a repeat.
            request_id: A repeat joins or replays the first run.

        Raises:
            IsolationError: The workspace is not there, the command makes no sense or could not start.
        """
        validation.check_output_limit(output_limit)
        output = OutputMode(capture_bytes=output_limit)
        held, run = self._run(workspace_id, command, output, Interaction(), linger, request_id)
        return await processes.execute(held.session, run)

    async def stream(
        self, workspace_id: str, command: Command, output: OutputMode, *, linger: float = 0, request_id: str = ""
    ) -> ProcessStream:
        """Starts a command and returns its events, to be entered at once.

        Args:
            workspace_id: Where.
            command: What.
            output: What happens to its output.
            linger: Seconds that the process lives when its stream was left.
            request_id: A repeat reads the first run from its beginning.

        Raises:
            IsolationError: The workspace is not there or the command makes no sense.
        """
        held, run = self._run(workspace_id, command, output, Interaction(), linger, request_id)
        return await run.open(held.session)

    async def resume(
        self, workspace_id: str, process_id: str, offset: int, *, observe: bool = False, field: str = "resume"
    ) -> ProcessStream:
        """Returns the events of a process from an offset, to be entered at once.

        Args:
            workspace_id: Where.
            process_id: Which.
            offset: First byte wanted.
            observe: Neither keep the process alive nor let it go on.
            field: The request's field that names the process.

        Raises:
            IsolationError: The workspace is not there, or no process is named.
        """
        if not process_id:
            raise InvalidArgumentError("name the process", field=f"{field}.process_id")
        return await ProcessStream.resume(self._find(workspace_id).session, process_id, offset, observe=observe)

    async def start_attached(
        self,
        workspace_id: str,
        command: Command,
        output: OutputMode,
        terminal: TerminalSize | None,
        *,
        read_only: bool = False,
        take_input: bool = False,
        linger: float = 0,
        request_id: str = "",
    ) -> Attachment:
        """Starts a command and returns an attachment to it, to be entered at once.

        Args:
            workspace_id: Where.
            command: What; its standard input is what attachments write.
            output: What happens to its output.
            terminal: Run it in a pseudo-terminal of this size.
            read_only: Be no writer of its input.
            take_input: Become the writer also where another attachment is.
            linger: Seconds that the process lives when its last reader has gone.
            request_id: A repeat attaches to the first run.

        Raises:
            IsolationError: The workspace is not there or the command makes no sense.
        """
        if command.stdin is not None:
            raise InvalidArgumentError("leave it out: its input comes as `stdin` messages", field="command.stdin")
        if terminal is not None:
            validation.check_terminal_size(terminal, "open.terminal")
        interaction = Interaction(input=True, terminal=terminal)
        held, run = self._run(workspace_id, command, output, interaction, linger, request_id)
        stream = await run.open(held.session)
        return Attachment(held.session, stream, writes=not read_only, take_input=take_input)

    async def attach(
        self,
        workspace_id: str,
        process_id: str,
        offset: int,
        *,
        read_only: bool = False,
        take_input: bool = False,
        observe: bool = False,
    ) -> Attachment:
        """Returns an attachment to a process that was started before, to be entered at once.

        Args:
            workspace_id: Where.
            process_id: Which.
            offset: First byte wanted of its output.
            read_only: Be no writer of its input.
            take_input: Become the writer also where another attachment is.
            observe: Neither keep the process alive nor let it go on by reading.

        Raises:
            IsolationError: The workspace is not there, or no process is named.
        """
        stream = await self.resume(workspace_id, process_id, offset, observe=observe, field="open.resume")
        session = self._find(workspace_id).session
        return Attachment(session, stream, writes=not read_only, take_input=take_input)

    async def list(self, workspace_id: str) -> list[ProcessInfo]:
        """Returns the processes that were started in a workspace and are remembered, oldest first.

        Raises:
            IsolationError: The workspace is not there.
        """
        return await control.list_processes(self._find(workspace_id).session)

    async def wait(self, workspace_id: str, process_id: str) -> Termination:
        """Waits until a process has ended; see control.wait.

        Raises:
            ProcessNotFoundError: There is none of that id.
            IsolationError: The workspace is not there.
        """
        if not process_id:
            raise InvalidArgumentError("name the process", field="process_id")
        return await control.wait(self._find(workspace_id).session, process_id)

    async def signal(
        self,
        workspace_id: str,
        number: int,
        *,
        process_id: str = "",
        request_id: str = "",
        tree: bool = False,
        foreground: bool = False,
    ) -> None:
        """Sends a signal to a process. SIGKILL to its whole tree returns when that has ended.

        Args:
            workspace_id: Where.
            number: The signal, 1 to 64.
            process_id: Its id; or
            request_id: the id of the request that has started it. SIGKILL to the tree of one that has not arrived yet
                forbids it to start.
            tree: Every process of its tree.
            foreground: The foreground process group of its terminal, where it has one.

        Raises:
            ProcessNotFoundError: There is none of that id.
            IsolationError: The workspace is not there, or the arguments make no sense.
        """
        validation.check_signal(number)
        if bool(process_id) == bool(request_id):
            raise InvalidArgumentError("name the process, or the request that started it, not both", field="process_id")
        if tree and foreground:
            raise InvalidArgumentError("signal the whole tree or the foreground, not both", field="foreground")
        session = self._find(workspace_id).session
        process_id = process_id or processes.process_id_of(request_id)
        if tree and number == signals.SIGKILL:
            await control.kill(session, process_id, forbid=bool(request_id))
        else:
            await control.signal(session, process_id, number, tree=tree, foreground=foreground)

    async def kill(self, workspace_id: str, *, request_id: str) -> None:
        """Kills what a request has started, or forbids it to start; see `signal`."""
        await self.signal(workspace_id, signals.SIGKILL, request_id=request_id, tree=True)

    def _run(
        self,
        workspace_id: str,
        command: Command,
        output: OutputMode,
        interaction: Interaction,
        linger: float,
        request_id: str,
    ) -> tuple[HeldWorkspace, ProcessRun]:
        held = self._find(workspace_id)
        validation.check_command(command)
        validation.check_linger(linger)
        run = ProcessRun.of(
            command,
            held.config.environment,
            output,
            interaction,
            linger=linger,
            request_id=request_id,
            trace=self._trace(),
        )
        return held, run
