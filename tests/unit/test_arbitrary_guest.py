"""A guest that answers anything at all: calls end, in a result or an error of the tree, and nothing of them stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_isolation import IsolationError, UnavailableError, WorkspaceLostError
from agentic_isolation import _convert as convert
from agentic_isolation import _convert_runs as run_convert
from agentic_isolation.runs import Command
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.core import files, processes
from agentic_isolation_service.core.processes import OutputMode, ProcessRun
from agentic_isolation_service.guest.frames import FrameType, encode
from agentic_isolation_service.guest.session import GuestSession
from tests.unit.fake_guest import EXITED, FILE, STARTED, GuestEnd, let_tasks_run, session_with


def run_of(command: Command, output: OutputMode) -> ProcessRun:
    """Returns a run of the process that guests tell of."""
    operation = ProcessRun.of(command, {}, output)._operation | {"process_id": STARTED["process_id"]}
    return ProcessRun(str(STARTED["process_id"]), operation, command.stdin)


async def execute(session: GuestSession) -> None:
    run = run_of(Command(["true"], stdin=b"input"), OutputMode(capture_bytes=1000))
    outcome = await processes.execute(session, run)
    run_convert.termination_to_pb(outcome.termination)
    run_convert.captured_to_pb(outcome.stdout)


async def stream(session: GuestSession) -> None:
    async with await run_of(Command(["true"]), OutputMode(lines=True)).open(session) as events:
        while event := await events.next(keepalive=60):
            run_convert.event_to_pb(event, pb.StreamResponse)


async def upload(session: GuestSession) -> None:
    async with await files.write(session, "f", 0o644) as writer:
        await writer.write(b"content")
        convert.file_to_pb((await writer.finish())[0])


async def download(session: GuestSession) -> None:
    async with await files.read(session, "f", 0, None) as reader:
        convert.file_to_pb(await reader.begin())
        async for chunk in reader.chunks():
            assert chunk


USES = [execute, stream, upload, download]

texts = st.text(st.characters(codec=None), max_size=10) | st.sampled_from(
    ["exited", "attached", "PROCESS_EXISTS", "file"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
proper: st.SearchStrategy[dict[str, Any]] = st.sampled_from([EXITED, STARTED, FILE, {"reason": "BAD_REQUEST"}])
names = st.sampled_from(sorted({*EXITED, *STARTED, *FILE, "offset", "reason", "message"}))
almost_proper = st.builds(lambda value, change: value | change, proper, st.dictionaries(names, values, max_size=3))
payloads = (proper | almost_proper | values).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=100)
kinds = st.sampled_from(FrameType) | st.sampled_from([FrameType.EVENT, FrameType.RESULT, FrameType.ERROR])
frames = st.builds(encode, kinds, st.just(1) | st.integers(0, 2) | st.integers(0, 2**32 - 1), payloads)
answers = st.lists(frames, max_size=6).map(b"".join) | st.binary(max_size=300)


@pytest.mark.parametrize("use", USES)
@settings(max_examples=150)
@given(answers=st.lists(answers, min_size=1, max_size=3))
def test_guest_that_answers_anything_and_hangs_up(
    use: Callable[[GuestSession], Awaitable[None]], answers: list[bytes]
) -> None:
    """Each answer goes to an operation of a link of its own; the last one is given again and again."""

    async def script(end: GuestEnd) -> None:
        await end.operation()
        await end.send_bytes(answers[min(end.number, len(answers) - 1)])
        await end.hang_up()

    async def use_it() -> None:
        async with session_with(script) as session:
            for _ in range(len(answers)):
                try:
                    await use(session)
                except WorkspaceLostError:
                    assert session.lost is not None or b"SHUTTING_DOWN" in b"".join(answers)
                except UnavailableError:
                    assert session.lost is None
                except IsolationError:
                    pass
        await assert_no_task_is_left()

    asyncio.run(use_it())


@pytest.mark.parametrize("use", USES)
@settings(max_examples=50)
@given(answer=answers)
def test_guest_that_answers_anything_and_then_is_silent(
    use: Callable[[GuestSession], Awaitable[None]], answer: bytes
) -> None:
    """What waits for more can be cancelled."""

    async def script(end: GuestEnd) -> None:
        await end.operation()
        await end.send_bytes(answer)

    async def use_it() -> None:
        async with session_with(script) as session:
            using = asyncio.ensure_future(use(session))
            await let_tasks_run()
            using.cancel()
            (end,) = await asyncio.gather(using, return_exceptions=True)
            assert end is None or isinstance(end, IsolationError | asyncio.CancelledError)
        await assert_no_task_is_left()

    asyncio.run(use_it())


async def assert_no_task_is_left() -> None:
    await let_tasks_run()
    assert asyncio.all_tasks() == {asyncio.current_task()}
