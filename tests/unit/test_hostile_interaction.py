"""Guests that tell nonsense of processes, of their input, of archives and of changes: it loses their workspace."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentic_isolation.interaction import InputProgress
from agentic_isolation.runs import Command
from agentic_isolation_service.core import archives, control, files
from agentic_isolation_service.core.attachment import Attachment, Input, ProcessInput
from agentic_isolation_service.core.processes import Interaction, OutputMode, ProcessRun
from agentic_isolation_service.core.watching import Watch
from agentic_isolation_service.guest.frames import FrameType, encode, encode_credit
from agentic_isolation_service.guest.session import GuestSession
from tests.unit.fake_guest import EXITED, FILE, GuestEnd, Script, started
from tests.unit.test_hostile_payloads import (
    NOT_NUMBERS,
    NOT_TEXTS,
    answering,
    assert_loses_the_workspace,
    cases,
)

PROCESS = {
    "process_id": "p", "argv": ["sleep", "1"], "pid": 1, "state": "running", "started_unix_ns": 1, "cpu_us": 1,
    "memory_bytes": 1, "terminal": False, "detached": False, "output_bytes": 0, "processes": 1,
}  # fmt: skip
NOT_BOOLEANS: list[object] = [None, 1, "true", []]
SUMMARY = {"files": 1, "directories": 1, "symlinks": 0, "skipped": 0, "bytes": 1}
CHANGE = {"change": "created", "path": "/workspace/f", "directory": False}


async def ps(session: GuestSession) -> object:
    return await control.list_processes(session)


@pytest.mark.parametrize(
    "process",
    cases(
        PROCESS,
        {
            "process_id": [*NOT_TEXTS, "", "p" * 65, "p-1\n", "p;rm", "p\x1b[2J"],
            "argv": [None, "sleep", {}, [1], [None], ["\ud800"]],
            "started_unix_ns": NOT_NUMBERS,
            "cpu_us": NOT_NUMBERS,
            "memory_bytes": NOT_NUMBERS,
            "output_bytes": NOT_NUMBERS[1:],
            "processes": NOT_NUMBERS[1:],
            "terminal": NOT_BOOLEANS,
            "detached": NOT_BOOLEANS,
            "result": [[], "x", {}, {"cause": "exited"}],
        },
    ),
)
async def test_listing_of_processes(process: dict[str, Any]) -> None:
    await assert_loses_the_workspace(answering((FrameType.RESULT, {"processes": [process]})), ps)


@pytest.mark.parametrize("listing", [{}, {"processes": None}, {"processes": [1]}, {"processes": [PROCESS] * 4097}])
async def test_list_of_processes(listing: dict[str, Any]) -> None:
    await assert_loses_the_workspace(answering((FrameType.RESULT, listing)), ps)


async def test_end_that_is_waited_for() -> None:
    async def wait(session: GuestSession) -> object:
        return await control.wait(session, "p")

    for result in ({}, EXITED | {"cause": "bored"}, EXITED | {"signal": 9}):
        await assert_loses_the_workspace(answering((FrameType.RESULT, result)), wait)


async def attach(session: GuestSession) -> object:
    """Attaches, writes, and returns what is told until the input has ended."""
    run = ProcessRun.of(Command(["cat"]), {}, OutputMode(), Interaction(input=True))
    async with Attachment(session, await run.open(session), writes=True, take_input=False) as attachment:

        async def actions() -> Any:
            yield Input(b"input")

        attachment.act(actions())
        while event := await attachment.next():
            if isinstance(event, InputProgress) and event.ended:
                return event
    return None


def telling_of_input(*frames: bytes) -> Script:
    """Returns the script of a guest that starts a process and says these things of its input, on the channel 2."""

    async def script(end: GuestEnd) -> None:
        channel, operation = await end.operation()
        await end.send_json(FrameType.EVENT, channel, started(operation))
        channel, operation = await end.operation()
        assert operation["op"] == "input"
        assert channel == 2
        for frame in frames:
            await end.send_bytes(frame)

    return script


def told(kind: FrameType, value: object) -> bytes:
    return encode(kind, 2, json.dumps(value).encode())


BEGUN = told(FrameType.EVENT, {"event": "input", "offset": 0, "ended": False})


@pytest.mark.parametrize(
    "frames",
    [
        [told(FrameType.EVENT, {"event": "input", "offset": -1, "ended": False})],
        [told(FrameType.EVENT, {"event": "input", "offset": 0})],
        [told(FrameType.RESULT, {"offset": 0, "ended": True})],
        [BEGUN, BEGUN],
        [BEGUN, encode_credit(2, 1 << 30)],
        [BEGUN, told(FrameType.RESULT, {"offset": "5", "ended": True})],
        [BEGUN, encode(FrameType.STDOUT, 2, b"x")],
        [BEGUN, encode(FrameType.GAP, 2, bytes(8))],
    ],
)
async def test_progress_of_input(frames: list[bytes]) -> None:
    await assert_loses_the_workspace(telling_of_input(*frames), attach)


async def test_input_without_a_process_to_attach_to() -> None:
    async def open_input(session: GuestSession) -> object:
        return await (await ProcessInput.open(session, "p", take=False)).next()

    for first in (FrameType.RESULT, FrameType.EVENT):
        await assert_loses_the_workspace(answering((first, {})), open_input)


async def unpack(session: GuestSession) -> object:
    async with await archives.unpack(session, ".") as upload:
        await upload.write(b"x")
        return await upload.finish()


async def pack(session: GuestSession) -> object:
    async with await archives.pack(session, ".", []) as download:
        await download.begin()
        async for _ in download.chunks():
            pass
        return download.result


@pytest.mark.parametrize(
    "summary",
    cases(
        SUMMARY,
        {**dict.fromkeys(["files", "directories", "symlinks", "bytes"], NOT_NUMBERS), "skipped": NOT_NUMBERS[1:]},
    ),
)
async def test_summary_of_an_archive(summary: dict[str, Any]) -> None:
    await assert_loses_the_workspace(answering((FrameType.RESULT, summary)), unpack)
    event = (FrameType.EVENT, {"event": "directory"} | FILE)
    await assert_loses_the_workspace(answering(event, (FrameType.RESULT, summary)), pack)


@pytest.mark.parametrize("digest", [None, 1, "", "00", "g" * 64, "A" * 64, "00" * 33])
async def test_digest_of_a_file(digest: object) -> None:
    async def write(session: GuestSession) -> object:
        async with await files.write(session, "f", None, digest=True) as upload:
            return await upload.finish({"bytes": 0})

    if digest != "":
        await assert_loses_the_workspace(answering((FrameType.RESULT, FILE | {"sha256": digest})), write)


async def watch(session: GuestSession) -> object:
    async with await Watch.open(session, ".", recursive=True) as changes:
        while await changes.next():
            pass
    return None


@pytest.mark.parametrize(
    "line",
    [
        b"\n", b"{\n", b"[]\n", b"{}\n", b'{"change": "overflowed"}\n', b"\xff\n", b"x" * 65536,
        *(json.dumps(case.values[0]).encode() + b"\n" for case in cases(
            CHANGE, {"change": NOT_TEXTS, "path": NOT_TEXTS, "from": NOT_TEXTS[1:], "directory": NOT_BOOLEANS}
        )),
    ],
)  # fmt: skip
async def test_line_of_a_watch(line: bytes) -> None:
    async def script(end: GuestEnd) -> None:
        channel, _ = await end.operation()
        await end.send_json(FrameType.EVENT, channel, {"event": "watching"} | FILE)
        for _ in range(2):
            await end.send(FrameType.DATA, channel, line)

    await assert_loses_the_workspace(script, watch)
