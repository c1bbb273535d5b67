"""Guests whose frames are well-formed and whose words are not: every member is checked, and no value does harm."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agentic_isolation import IsolationError, WorkspaceLostError
from agentic_isolation import _convert as convert
from agentic_isolation import _convert_runs as run_convert
from agentic_isolation.runs import Command, StreamEvent
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.core import files, processes
from agentic_isolation_service.core.processes import OutputMode, ProcessRun
from agentic_isolation_service.core.validation import MAX_OUTPUT_LIMIT
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.frames import MAX_DATA, FrameType, decode_uint32, encode
from agentic_isolation_service.guest.session import GuestSession
from agentic_isolation_service.rpc.errors import status_of
from tests.unit.fake_guest import EXITED, FILE, INFO, STARTED, GuestEnd, Script, session_with, started

MISSING = object()
SURROGATE = "\ud800"
TOO_LARGE = 2**63
NOT_NUMBERS = [MISSING, None, "1", 1.5, True, [], {}, -1, TOO_LARGE]
NOT_TEXTS = [MISSING, None, 1, True, [], {}, SURROGATE, "a" + SURROGATE]


def with_member(value: dict[str, Any], path: str, member: object) -> dict[str, Any]:
    """Returns the payload with one member changed, or left out; a dot leads into an inner object."""
    name, _, inner = path.partition(".")
    if inner:
        return value | {name: with_member(value[name], inner, member)}
    return {key: found for key, found in value.items() if key != name} | ({} if member is MISSING else {name: member})


def cases(value: dict[str, Any], wrong: dict[str, list[Any]]) -> list[Any]:
    """Returns the payload in each wrong version."""
    return [
        pytest.param(with_member(value, path, member), id=f"{path}={'missing' if member is MISSING else member!r:.20}")
        for path, members in wrong.items()
        for member in members
    ]


def answering(*frames: tuple[FrameType, dict[str, Any]]) -> Script:
    """Returns the script of a guest that answers every operation with these frames."""

    async def script(end: GuestEnd) -> None:
        while True:
            channel, operation = await end.operation()
            for kind, value in frames:
                if value.get("process_id") == STARTED["process_id"]:
                    value = value | {"process_id": operation.get("process_id")}
                await end.send_bytes(encode(kind, channel, json.dumps(value).encode()))

    return script


async def run(session: GuestSession) -> object:
    run = ProcessRun.of(Command(["true"]), {}, OutputMode(capture_bytes=1000))
    return await processes.execute(session, run)


async def events(session: GuestSession) -> list[StreamEvent]:
    """Runs a command as a stream and returns its events, each of which can be sent to a client."""
    async with await ProcessRun.of(Command(["true"]), {}, OutputMode()).open(session) as stream:
        found = []
        while event := await stream.next():
            run_convert.event_to_pb(event, pb.StreamResponse)
            found.append(event)
        return found


async def stat(session: GuestSession) -> object:
    return await files.stat(session, "f")


async def list_directory(session: GuestSession) -> object:
    return await files.list_directory(session, ".", 10, "")


async def read(session: GuestSession) -> object:
    async with await files.read(session, "f", 0, None) as reader:
        return await reader.begin()


async def write(session: GuestSession) -> object:
    async with await files.write(session, "f", None) as writer:
        await writer.write(b"content")
        return await writer.finish()


async def info(session: GuestSession) -> object:
    return await session.call_for({"op": "info"}, lambda value: payloads.isolation(value, "local"))


async def assert_loses_the_workspace(script: Script, use: Callable[[GuestSession], Awaitable[object]]) -> None:
    async with session_with(script) as session:
        for _ in range(2):
            with pytest.raises(WorkspaceLostError):
                await use(session)
        assert await session.wait_lost() is session.lost


BAD_EXITED = cases(
    EXITED,
    {
        "exit_code": [MISSING, None, -1, 256, "0", True, 0.0, [], TOO_LARGE],
        "signal": [9],  # as well as an exit code
        "cause": [*NOT_TEXTS, "", "bored", "EXITED"],
        "started_unix_ns": NOT_NUMBERS,
        "duration_us": NOT_NUMBERS,
        "cpu_us": NOT_NUMBERS[1:],
        "peak_memory_bytes": NOT_NUMBERS[1:],
        "survivors": NOT_NUMBERS[1:],
    },
)
SIGNALED = with_member(EXITED, "exit_code", MISSING) | {"cause": "signaled"}


@pytest.mark.parametrize("result", [*BAD_EXITED, *cases(SIGNALED, {"signal": [MISSING, "9", -1, 65, True]})])
async def test_result_of_a_process(result: dict[str, Any]) -> None:
    script = answering((FrameType.EVENT, STARTED), (FrameType.RESULT, result))
    await assert_loses_the_workspace(script, run)
    await assert_loses_the_workspace(script, events)


TRUNCATED = EXITED | {"stdout": {"total": 10, "omitted": 10, "head": 0}}


@pytest.mark.parametrize(
    "result",
    [
        *cases(EXITED, {"stdout": [MISSING, None, [], 0], "stderr": [MISSING, "all"], "stderr.omitted": NOT_NUMBERS}),
        *cases(TRUNCATED, {"stdout.head": NOT_NUMBERS, "stdout.total": NOT_NUMBERS}),
    ],
)
async def test_account_of_captured_output(result: dict[str, Any]) -> None:
    await assert_loses_the_workspace(answering((FrameType.EVENT, STARTED), (FrameType.RESULT, result)), run)


@pytest.mark.parametrize(
    "event",
    [
        *cases(STARTED, {"process_id": NOT_TEXTS, "started_unix_ns": NOT_NUMBERS}),
        *cases(STARTED | {"event": "attached", "offset": 0}, {"offset": NOT_NUMBERS}),
    ],
)
async def test_start_of_a_process(event: dict[str, Any]) -> None:
    await assert_loses_the_workspace(answering((FrameType.EVENT, event), (FrameType.RESULT, EXITED)), events)


BAD_FILES = cases(
    FILE,
    {
        "path": NOT_TEXTS,
        "name": NOT_TEXTS,
        "type": [*NOT_TEXTS, "", "socket"],
        "size": NOT_NUMBERS,
        "mode": NOT_NUMBERS,
        "mtime_unix_ns": NOT_NUMBERS,
        "target": NOT_TEXTS[1:],
    },
)


@pytest.mark.parametrize("file", BAD_FILES)
async def test_file_entry(file: dict[str, Any]) -> None:
    await assert_loses_the_workspace(answering((FrameType.RESULT, file)), stat)
    await assert_loses_the_workspace(answering((FrameType.RESULT, file)), write)
    await assert_loses_the_workspace(answering((FrameType.EVENT, {"event": "file"} | file)), read)
    await assert_loses_the_workspace(answering((FrameType.RESULT, {"entries": [file], "more": False})), list_directory)


@pytest.mark.parametrize(
    "page",
    [
        {},
        {"entries": None},
        {"entries": FILE},
        {"entries": [None]},
        {"entries": [[]]},
        {"entries": [FILE] * 1001, "more": False},
        {"entries": [FILE]},
        {"entries": [FILE], "more": "yes"},
    ],
    ids=lambda page: repr(page)[:40],
)
async def test_page_of_a_directory(page: dict[str, Any]) -> None:
    await assert_loses_the_workspace(answering((FrameType.RESULT, page)), list_directory)


async def test_download_that_begins_with_something_else() -> None:
    for first in (FrameType.RESULT, FrameType.END, FrameType.DATA):

        async def script(end: GuestEnd, first: FrameType = first) -> None:
            channel, _ = await end.operation()
            payload = {FrameType.RESULT: b"{}", FrameType.END: b"", FrameType.DATA: b"x"}[first]
            await end.send(first, channel, payload)

        await assert_loses_the_workspace(script, read)


@pytest.mark.parametrize(
    "measured",
    cases(
        INFO,
        {
            "uid": NOT_NUMBERS,
            "gid": NOT_NUMBERS,
            "capabilities": [*NOT_TEXTS, "", "all", "-1", "0x", "٣"],
            "no_new_privs": [MISSING, None, 1, "true"],
            "seccomp": NOT_NUMBERS,
            "root_read_only": [MISSING, 0],
            "kernel": NOT_TEXTS,
        },
    ),
)
async def test_measured_isolation(measured: dict[str, Any]) -> None:
    await assert_loses_the_workspace(answering((FrameType.RESULT, measured)), info)


async def test_greatest_numbers_can_be_told_to_clients() -> None:
    greatest = TOO_LARGE - 1
    times = dict.fromkeys(("started_unix_ns", "duration_us", "cpu_us", "peak_memory_bytes", "survivors"), greatest)
    script = answering((FrameType.EVENT, STARTED | {"started_unix_ns": greatest}), (FrameType.RESULT, EXITED | times))
    async with session_with(script) as session:
        assert len(await events(session)) == 2
    counts = {"total": greatest, "omitted": greatest, "head": greatest}
    async with session_with(answering((FrameType.RESULT, EXITED | {"stdout": counts, "stderr": counts}))) as session:
        outcome = await processes.execute(session, ProcessRun.of(Command(["x"]), {}, OutputMode(capture_bytes=1)))
        assert run_convert.captured_from_pb(run_convert.captured_to_pb(outcome.stdout)) == outcome.stdout
    limits = dict.fromkeys(("cpu_millis", "memory_bytes", "disk_bytes", "open_files", "pids", "processes"), greatest)
    assert convert.isolation_to_pb(payloads.isolation(INFO | {"limits": limits}, "fake")).pids_limit == 2**32 - 1
    numbers = dict.fromkeys(("size", "mode", "mtime_unix_ns"), greatest)
    async with session_with(answering((FrameType.RESULT, FILE | numbers))) as session:
        assert convert.file_to_pb(await files.stat(session, "f")).mode == 0o7777


async def test_offsets_beyond_what_clients_can_be_told() -> None:
    async def script(end: GuestEnd) -> None:
        channel, operation = await end.operation()
        await end.send_json(
            FrameType.EVENT, channel, started(operation) | {"event": "attached", "offset": TOO_LARGE - 1}
        )
        for _ in range(2):
            await end.send(FrameType.GAP, channel, b"\xff" * 8)
        await end.send(FrameType.STDOUT, channel, b"far out")
        await end.send_json(FrameType.RESULT, channel, EXITED)

    await assert_loses_the_workspace(script, events)


async def test_another_process_than_was_asked_for() -> None:
    """What is said of a process, to its caller and in the audit log, is that process's."""

    async def script(end: GuestEnd) -> None:
        channel, _ = await end.operation()
        await end.send_json(FrameType.EVENT, channel, STARTED | {"process_id": "p-of-another"})
        await end.send_json(FrameType.RESULT, channel, EXITED)

    await assert_loses_the_workspace(script, events)


async def test_more_output_than_was_asked_for() -> None:
    async def script(end: GuestEnd) -> None:
        channel, _ = await end.operation()
        credit = 1 << 18
        for _ in range(MAX_OUTPUT_LIMIT // MAX_DATA + 2):
            while credit <= 0:
                credit += decode_uint32((await end.expect(FrameType.CREDIT)).payload)
            await end.send(FrameType.STDOUT, channel, bytes(MAX_DATA))
            credit -= MAX_DATA

    await assert_loses_the_workspace(script, run)


DEEP: list[object] = []
for _ in range(900):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "error",
    [
        {},
        {"reason": None, "message": None},
        {"reason": ["FILE_NOT_FOUND"], "message": {}},
        {"reason": DEEP, "message": DEEP},
        {"reason": "FILE_NOT_FOUND", "message": SURROGATE * 10},
        {"reason": SURROGATE, "message": "x"},
        {"reason": "X" * 500_000, "message": "x" * 500_000},
        {"reason": "INTERNAL", "message": "not a guest's to say"},
        {"reason": "WORKSPACE_NOT_FOUND", "message": "nor this"},
        {"reason": "CANCELLED", "message": "though nobody has cancelled"},
    ],
    ids=lambda error: repr(error)[:40] if error.get("reason") is not DEEP else "deep",
)
@pytest.mark.parametrize("use", [run, events, stat, list_directory, read, write, info])
async def test_errors_of_any_kind_are_errors_of_the_tree(
    error: dict[str, Any], use: Callable[[GuestSession], Awaitable[object]]
) -> None:
    async with session_with(answering((FrameType.ERROR, error))) as session:
        with pytest.raises(IsolationError) as caught:
            await use(session)
        assert len(str(caught.value)) < 1200
        assert status_of(caught.value).message
