"""What a client does in a workspace, each deed in its journal before it begins and when it is answered."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from agentic_isolation import AgenticWorkspace, ExecuteResult, IsolationError
from agentic_isolation.runs import CapturedOutput, Exited, Gap, Output, OutputSource, Started
from tests.chaos.jobs import LOG, Job
from tests.chaos.journal import Journal
from tests.chaos.lines import LineAccount

GONE = ("WORKSPACE_LOST", "WORKSPACE_NOT_FOUND", "NOT_FOUND")
"""Reasons that say that there is no workspace any more."""
_PROGRESS_INTERVAL = 0.5
"""Seconds between two notes of how far a stream has come."""

Answer = dict[str, Any]


class GoneError(Exception):
    """The workspace is gone; the operation that was told so is in the journal."""


class Recorder:
    """Numbers a client's operations and keeps its journal.

    Args:
        client: The client's name, in which all of its operations' ids begin.
        journal: Where to write.
    """

    def __init__(self, client: str, journal: Journal) -> None:
        self._client = client
        self._journal = journal
        self._count = 0

    def next_id(self) -> str:
        """Returns the id of the next operation."""
        self._count += 1
        return f"{self._client}-{self._count:06d}"

    async def carry_out(
        self,
        kind: str,
        perform: Callable[[], Awaitable[Answer]],
        *,
        runtime: str,
        workspace: str = "",
        operation: str | None = None,
        asked: Answer | None = None,
    ) -> Answer | None:
        """Performs an operation and returns its answer; None when it failed.

        Raises:
            GoneError: It was told that its workspace is gone.
        """
        identity = operation or self.next_id()
        self._journal.write("start", op=identity, kind=kind, workspace=workspace, runtime=runtime, asked=asked or {})
        try:
            answer = await perform()
        except IsolationError as error:
            self._journal.write("fail", op=identity, reason=error.reason, message=str(error))
            if error.reason in GONE:
                raise GoneError from error
            return None
        except Exception as error:  # noqa: BLE001  an error from outside of the tree is the run's finding, not its end
            trace = "".join(traceback.format_exception(error))
            self._journal.write("fail", op=identity, reason=f"DEFECT {type(error).__name__}", message=trace)
            return None
        self._journal.write("ok", op=identity, answer=answer)
        return answer

    def progress(self, operation: str, answer: Answer) -> None:
        """Notes what has come so far."""
        self._journal.write("progress", op=operation, answer=answer)


class WorkspaceDeeds:
    """The operations on one workspace.

    Args:
        recorder: The client's.
        workspace: An open workspace.
        runtime: What it was asked to have.
    """

    def __init__(self, recorder: Recorder, workspace: AgenticWorkspace, runtime: str) -> None:
        self._recorder = recorder
        self._workspace = workspace
        self._runtime = runtime

    def next_token(self) -> str:
        """Returns a token that no other command has."""
        return self._recorder.next_id()

    async def execute(self, job: Job, output_limit: int | None = None) -> None:
        """Runs a command to its end."""

        async def perform() -> Answer:
            result = await self._workspace.execute(job.script, timeout=job.timeout, output_limit=output_limit)
            return _result_record(result)

        await self._do("execute", perform, operation=job.token, asked=job.record())

    async def abandon(self, job: Job, after: float) -> None:
        """Runs a command and cancels it after some seconds, unless it has ended by then."""

        async def perform() -> Answer:
            running = asyncio.ensure_future(self._workspace.execute(job.script))
            await asyncio.wait([running], timeout=after)
            running.cancel()
            await asyncio.wait([running])
            if not running.cancelled() and (error := running.exception()) is not None:
                raise error
            return {"cancelled": running.cancelled()}

        await self._do("abandon", perform, operation=job.token, asked=job.record())

    async def stream_lines(self, job: Job) -> None:
        """Reads a command's lines as they are printed."""

        async def perform() -> Answer:
            account, noted = LineAccount(job.token), time.monotonic()
            async with self._workspace.stream(job.script, timeout=job.timeout) as stream:
                async for line in stream:
                    account.feed(line.encode() + b"\n")
                    if time.monotonic() - noted > _PROGRESS_INTERVAL:
                        self._recorder.progress(job.token, {"stdout": account.record()})
                        noted = time.monotonic()
            return {"stdout": account.record(), "exit_code": stream.exit_code}

        await self._do("stream", perform, operation=job.token, asked=job.record())

    async def stream_events(self, job: Job) -> None:
        """Reads a command's events: both outputs, byte by byte."""

        async def perform() -> Answer:
            reading = _EventReading(job.token)
            noted = time.monotonic()
            async with self._workspace.stream(job.script, timeout=job.timeout) as stream:
                async for event in stream.events():
                    reading.take(event)
                    if time.monotonic() - noted > _PROGRESS_INTERVAL:
                        self._recorder.progress(job.token, reading.record())
                        noted = time.monotonic()
            return reading.record()

        await self._do("stream", perform, operation=job.token, asked=job.record())

    async def write(self, path: str, content: bytes) -> bool:
        """Writes a file; returns whether that was acknowledged."""

        async def perform() -> Answer:
            await self._workspace.write_file(path, content)
            return {}

        asked = {"path": path, **_digest(content)}
        return await self._do("write", perform, asked=asked) is not None

    async def read(self, path: str) -> None:
        """Reads a file."""

        async def perform() -> Answer:
            return _digest(await self._workspace.read_file(path))

        await self._do("read", perform, asked={"path": path})

    async def read_log(self) -> None:
        """Reads the log of all commands, by a command."""

        async def perform() -> Answer:
            result = await self._workspace.execute(["cat", LOG])
            return {"exit_code": result.exit_code, "lines": result.stdout.splitlines()}

        await self._do("log", perform)

    async def destroy(self) -> None:
        """Closes the workspace."""

        async def perform() -> Answer:
            await self._workspace.close()
            return {}

        await self._do("destroy", perform)

    async def _do(
        self,
        kind: str,
        perform: Callable[[], Awaitable[Answer]],
        *,
        operation: str | None = None,
        asked: Answer | None = None,
    ) -> Answer | None:
        return await self._recorder.carry_out(
            kind, perform, runtime=self._runtime, workspace=self._workspace.id, operation=operation, asked=asked
        )


class _EventReading:
    """What a stream's events amount to."""

    def __init__(self, token: str) -> None:
        self._accounts = {source: LineAccount(token) for source in OutputSource}
        self._started = 0
        self._offset = 0
        self._breaks: list[list[int]] = []
        self._lost_bytes = 0
        self._exit_code: int | None = None

    def take(self, event: object) -> None:
        match event:
            case Started():
                self._started += 1
            case Output(source, offset, data):
                if offset != self._offset:
                    self._breaks.append([self._offset, offset])
                self._offset = offset + len(data)
                self._accounts[source].feed(data)
            case Gap(lost_bytes):
                self._lost_bytes += lost_bytes
            case Exited(termination):
                self._exit_code = termination.returncode

    def record(self) -> Answer:
        return {
            "stdout": self._accounts[OutputSource.STDOUT].record(),
            "stderr": self._accounts[OutputSource.STDERR].record(),
            "started": self._started,
            "breaks": self._breaks[:20],
            "lost_bytes": self._lost_bytes,
            "exit_code": self._exit_code,
        }


def random_content(chance: random.Random) -> bytes:
    """Returns content for a file: mostly small, some of many messages' size, some empty."""
    most = chance.choices([1, 4 << 10, 300 << 10, 3 << 20], [1, 6, 4, 1])[0]
    return chance.randbytes(chance.randrange(most))


def _digest(content: bytes) -> Answer:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _result_record(result: ExecuteResult) -> Answer:
    cause = result.termination.cause.value if result.termination else None
    stdout, stderr = result.output
    return {
        "exit_code": result.exit_code,
        "timed_out": result.timed_out,
        "cause": cause,
        "stdout": captured_record(stdout),
        "stderr": captured_record(stderr),
    }


def captured_record(output: CapturedOutput) -> Answer:
    """Returns a unary call's output for a journal."""
    return {
        "head": _digest(output.head),
        "tail": _digest(output.tail),
        "omitted": output.omitted_bytes,
        "begins": output.head[:200].decode(errors="replace"),
    }
