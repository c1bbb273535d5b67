"""Attacks on what workspaces share with the host: processes, memory, disk. They are judged from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agentic_isolation import (
    AgenticWorkspace,
    Exited,
    IsolationError,
    NoSpaceError,
    Output,
    OutputSource,
    ResourceLimits,
    Termination,
    TerminationCause,
)
from agentic_isolation_service.doctor.arena import PATIENCE, Arena, DoctorError, verdict_of
from agentic_isolation_service.doctor.findings import Outcome, Verdict, blocked, not_blocked

_LIMITS = ResourceLimits(memory="256M", disk="64M")
_FEW_PROCESSES = 64
"""Under gVisor a process costs some 4 MiB: with the usual limit of processes, memory would end first."""
_HELD = 3
"""Seconds that a bomb keeps what it took, for a look at the workspace meanwhile."""
_BOMB_TIMEOUT = 45.0


async def fork_bomb(arena: Arena) -> Verdict:
    """Processes without end: stopped at the limit, and the workspace answers meanwhile and afterwards."""
    async with arena.fresh(limits=ResourceLimits(disk="64M"), pids_limit=_FEW_PROCESSES) as workspace:
        command = [
            await arena.guest_in(workspace),
            "probe",
            "fork-bomb",
            "-limit",
            "1000",
            "-for",
            "30",
            "-hold",
            str(_HELD),
        ]
        return await _explode(arena, workspace, command, _looks)


async def disk_fill(arena: Arena) -> Verdict:
    """A file without end: stopped at the limit; meanwhile writes are refused for want of space and the rest works."""
    async with arena.fresh(limits=_LIMITS) as workspace:
        command = [await arena.guest_in(workspace), "probe", "disk-fill", "-limit", "256", "-hold", str(_HELD)]
        return await _explode(arena, workspace, command, _refuses_writes)


async def memory_bomb(arena: Arena) -> Verdict:
    """Memory without end: killed at the limit, told as out of memory, and the service answers."""
    async with arena.fresh(limits=_LIMITS) as workspace:
        command = [await arena.guest_in(workspace), "probe", "memory-bomb", "-limit", "1024"]
        try:
            async with asyncio.timeout(_BOMB_TIMEOUT + PATIENCE):
                result = await workspace.execute(command, timeout=_BOMB_TIMEOUT)
        except TimeoutError:
            return not_blocked(f"the service has not answered for {_BOMB_TIMEOUT + PATIENCE:g} s")
        except IsolationError as error:
            return blocked(f"the whole workspace was ended: {error}")
        if result.success:
            return verdict_of(result.stdout, f"{' '.join(command)}: {result.stderr}")
        survived = await arena.answers(workspace)
        return blocked(f"{_told(result.termination)}; the workspace {'goes on' if survived else 'is lost'}")


def _told(termination: Termination | None) -> str:
    if termination is None:
        return "no word on how it ended"
    if termination.cause is TerminationCause.OUT_OF_MEMORY:
        return "killed, told as out_of_memory"
    return f"ended, told as {termination.cause.value}, not as out_of_memory"


async def _explode(
    arena: Arena, workspace: AgenticWorkspace, command: list[str], look: Callable[[AgenticWorkspace], Awaitable[str]]
) -> Verdict:
    """Runs a bomb, has a `look` at the workspace while it holds what it took, and another when it is over."""
    try:
        async with asyncio.timeout(_BOMB_TIMEOUT + PATIENCE):
            verdict, trouble = await _watch(workspace, command, look)
    except TimeoutError:
        return not_blocked("the service has not answered since")
    except IsolationError as error:
        return not_blocked(f"the workspace ended: {error}")
    if trouble:
        return not_blocked(f"{verdict.detail}; meanwhile {trouble}")
    if not await arena.answers(workspace):
        return not_blocked(f"{verdict.detail}; afterwards the workspace does not answer")
    if verdict.outcome is Outcome.BLOCKED:
        return blocked(f"{verdict.detail}; the workspace answers meanwhile and afterwards")
    return verdict


async def _watch(
    workspace: AgenticWorkspace, command: list[str], look: Callable[[AgenticWorkspace], Awaitable[str]]
) -> tuple[Verdict, str]:
    printed, trouble, looked = b"", "", False
    async with workspace.stream(command, timeout=_BOMB_TIMEOUT) as stream:
        async for event in stream.events():
            if isinstance(event, Output) and event.source is OutputSource.STDOUT:
                printed += event.data
                if printed.endswith(b"\n") and not looked:
                    looked = True
                    trouble = await look(workspace)
            elif isinstance(event, Exited) and not looked:
                raise DoctorError(f"{' '.join(command)}: ended with {event.termination.returncode}")
    return verdict_of(printed.decode(), " ".join(command)), trouble


async def _looks(workspace: AgenticWorkspace) -> str:
    """Returns what is wrong with a workspace that may start no process, or nothing."""
    try:
        async with asyncio.timeout(PATIENCE):
            await workspace.files.list(workspace.info.working_dir)
    except TimeoutError:
        return "the workspace does not answer"
    return ""


async def _refuses_writes(workspace: AgenticWorkspace) -> str:
    """Returns what is wrong with a workspace whose disk is full, or nothing."""
    trouble = await _looks(workspace)
    try:
        async with asyncio.timeout(PATIENCE):
            await workspace.write_file("more", b"x" * (1 << 20))
    except NoSpaceError:
        return trouble
    except TimeoutError:
        return "writing a file does not end"
    except IsolationError as error:
        return f"writing a file is refused as {error.reason}: {error}"
    return "writing a file works"
