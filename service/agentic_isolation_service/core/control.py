"""What is done with processes that were started: signals, sizes, waiting for them, listing them."""

from __future__ import annotations

from agentic_isolation.interaction import ProcessInfo, TerminalSize
from agentic_isolation.runs import Termination
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.session import GuestSession


async def signal(
    session: GuestSession, process_id: str, number: int, *, tree: bool = False, foreground: bool = False
) -> None:
    """Sends a signal to a process, to its whole tree, or to the foreground process group of its terminal.

    Raises:
        ProcessNotFoundError: There is none of that id.
        IsolationError: As GuestSession.call.
    """
    operation: dict[str, object] = {"op": "signal", "process_id": process_id, "signal": number, "tree": tree}
    if foreground:
        await session.call(operation | {"foreground": True}, since=3)
    else:
        await session.call(operation)


async def resize(session: GuestSession, process_id: str, size: TerminalSize) -> None:
    """Gives a process's terminal another size.

    Raises:
        ProcessNotFoundError, NoTerminalError: There is none of that id, or it has no terminal.
        IsolationError: As GuestSession.call.
    """
    operation: dict[str, object] = {"op": "resize", "process_id": process_id}
    await session.call(operation | {"columns": size.columns, "rows": size.rows}, since=3)


async def wait(session: GuestSession, process_id: str) -> Termination:
    """Waits until a process has ended, and neither reads it nor keeps it alive.

    Raises:
        ProcessNotFoundError: There is none of that id.
        IsolationError: As GuestSession.call.
    """
    ended = await session.call_for({"op": "wait", "process_id": process_id}, payloads.termination, since=3)
    return await session.note_end(process_id, ended)


async def list_processes(session: GuestSession) -> list[ProcessInfo]:
    """Returns the processes that the guest remembers, oldest first.

    Raises:
        IsolationError: As GuestSession.call.
    """
    return await session.call_for({"op": "ps"}, payloads.processes)


async def kill(session: GuestSession, process_id: str, *, forbid: bool = False) -> None:
    """Kills a process's tree and returns when it has ended.

    Args:
        session: The tie to its guest.
        process_id: Its id.
        forbid: One that has not been started yet never will be, in place of an error.

    Raises:
        ProcessNotFoundError: There is none of that id.
        IsolationError: As GuestSession.call.
    """
    await session.call({"op": "kill", "process_id": process_id, "forbid": forbid})
