"""Values of commands that run: what is asked for, what happens, how it ends.

All are frozen. Times are seconds (float) where a person writes them and milliseconds where a name ends in `_ms`; sizes
are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from agentic_isolation._wire import check_bytes, check_mapping, check_series

__all__ = [
    "CapturedOutput",
    "Command",
    "ExecuteResult",
    "Exited",
    "Gap",
    "KeepAlive",
    "Output",
    "OutputSource",
    "ProcessEvent",
    "Started",
    "StreamEvent",
    "Termination",
    "TerminationCause",
    "command_of",
]

TIMEOUT_EXIT_CODE = 124
"""What `timeout(1)` exits with, and what ExecuteResult.exit_code is after a timeout."""


class OutputSource(Enum):
    """Which of a process's outputs bytes come from."""

    STDOUT = "stdout"
    STDERR = "stderr"


class TerminationCause(Enum):
    """Why a process ended."""

    EXITED = "exited"
    SIGNALED = "signaled"
    TIMEOUT = "timeout"
    KILLED = "killed"
    OUT_OF_MEMORY = "out_of_memory"
    PIDS_LIMIT = "pids_limit"
    WORKSPACE_LOST = "workspace_lost"


@dataclass(frozen=True, slots=True)
class Command:
    """What to run."""

    program: Sequence[str] | str
    """A list is the program and its arguments as they are; a string is a line for `/bin/sh -c`."""
    cwd: str | None = None
    """Absolute path. None: the workspace's working_dir."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Laid over the workspace's environment."""
    stdin: bytes | None = field(default=None, repr=False)
    """Standard input, then end-of-file. None: end-of-file at once."""
    timeout: float | None = None
    """Seconds until the whole process tree is killed. None: no limit."""
    kill_grace: float = 0.0
    """On timeout or kill the tree gets SIGTERM so many seconds before SIGKILL."""
    user: str | None = None
    """`UID` or `UID:GID`. None: the workspace's user."""
    redact_secrets: bool = False
    """Put `***` in place of the workspace's secrets in its output."""


def command_of(
    program: str | Sequence[str],
    *,
    timeout: float | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes | None = None,
    redact_secrets: bool = False,
) -> Command:
    """Returns a Command from the arguments that every `execute`, `stream` and `start` takes.

    Raises:
        InvalidArgumentError: One is of another type.
    """
    return Command(
        program=program if isinstance(program, str) else tuple(check_series(program, "command")),
        cwd=cwd,
        env=dict(check_mapping(env or {}, "command.environment")),
        stdin=None if stdin is None else check_bytes(stdin, "command.stdin"),
        timeout=timeout,
        redact_secrets=redact_secrets,
    )


@dataclass(frozen=True, slots=True)
class Termination:
    """How a process ended."""

    cause: TerminationCause
    exit_code: int | None
    """0 to 255; None when a signal ended it, or when that is not known."""
    signal: int | None
    """Number of the signal; None when it exited."""
    started_at: datetime
    duration_ms: float
    cpu_ms: float = 0.0
    """User and system time of its tree's ended processes."""
    peak_memory_bytes: int = 0
    """Largest resident set of any process of its tree."""
    survivors: int = 0
    """Processes of its tree that still run, as it has left them in the background. 0: the tree is verified empty."""

    @property
    def returncode(self) -> int:
        """One number as a shell gives it: the exit code, 124 after a timeout, 128+n for signal n, -1 if not known."""
        if self.cause is TerminationCause.TIMEOUT:
            return TIMEOUT_EXIT_CODE
        if self.exit_code is not None:
            return self.exit_code
        return -1 if self.signal is None else 128 + self.signal


@dataclass(frozen=True, slots=True)
class CapturedOutput:
    """Output of one source: all of it in `head`, or its beginning and its end."""

    head: bytes = b""
    tail: bytes = b""
    omitted_bytes: int = 0
    total_bytes: int = 0

    @property
    def truncated(self) -> bool:
        """Whether bytes are left out between head and tail."""
        return self.omitted_bytes > 0

    def text(self) -> str:
        """The output as text: invalid UTF-8 replaced, and a line that says how much was left out, where any was."""
        if not self.truncated:
            return (self.head + self.tail).decode("utf-8", "replace")
        note = f"\n[... {self.omitted_bytes} bytes left out ...]\n"
        return self.head.decode("utf-8", "replace") + note + self.tail.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class ExecuteResult:
    """The result of a command. A non-zero exit, a signal and a timeout are results, not errors."""

    exit_code: int
    """0 to 255; 128+n when signal n ended it; 124 after a timeout."""
    stdout: str
    """Text; invalid UTF-8 is replaced. `output` has the bytes."""
    stderr: str
    """Likewise."""
    success: bool
    """Whether the exit code is 0."""
    duration_ms: float
    """From start to end, in milliseconds."""
    timed_out: bool = False
    """Whether the command's timeout ended it. stdout and stderr hold what was printed until then."""
    truncated: bool = False
    """Whether stdout or stderr was longer than the limit and has a part left out."""
    termination: Termination | None = field(default=None, repr=False)
    """Cause, CPU time, peak memory, survivors."""
    output: tuple[CapturedOutput, CapturedOutput] = field(default=(CapturedOutput(), CapturedOutput()), repr=False)
    """stdout and stderr as bytes."""

    @classmethod
    def of(cls, termination: Termination, stdout: CapturedOutput, stderr: CapturedOutput) -> ExecuteResult:
        """Builds the result of a run that ended in this way with this output."""
        return cls(
            exit_code=termination.returncode,
            stdout=stdout.text(),
            stderr=stderr.text(),
            success=termination.returncode == 0,
            duration_ms=termination.duration_ms,
            timed_out=termination.cause is TerminationCause.TIMEOUT,
            truncated=stdout.truncated or stderr.truncated,
            termination=termination,
            output=(stdout, stderr),
        )


@dataclass(frozen=True, slots=True)
class Started:
    """The first event: the process runs."""

    process_id: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes that the process wrote."""

    source: OutputSource
    offset: int
    """Place of the first byte in the process's output, both sources in one sequence."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """Output was lost here, because nobody read it in time."""

    lost_bytes: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The last event: the process has ended and all its output was sent."""

    termination: Termination


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Nothing happened for a while."""


ProcessEvent = Started | Output | Gap | Exited
"""What a stream of a process consists of."""
StreamEvent = ProcessEvent | KeepAlive
"""What the calls of one consist of."""
