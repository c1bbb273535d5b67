"""Guests that break the protocol: the workspace is lost for good, and nothing else happens."""

from __future__ import annotations

import asyncio
import json
import struct

import pytest

from agentic_isolation import UnavailableError, WorkspaceLostError
from agentic_isolation.runs import Command, Output, OutputSource
from agentic_isolation_service.core import files, processes
from agentic_isolation_service.core.processes import OutputMode, ProcessRun, ProcessStream
from agentic_isolation_service.guest import link as link_module
from agentic_isolation_service.guest.frames import MAX_DATA, MAX_PAYLOAD, WINDOW, FrameType, encode, encode_json
from agentic_isolation_service.guest.handshake import HIGHEST_VERSION
from agentic_isolation_service.guest.session import GuestSession
from tests.unit.fake_guest import (
    EXITED,
    FILE,
    KEY,
    NONCE,
    STARTED,
    WORKSPACE_ID,
    FakeGuest,
    GuestEnd,
    let_tasks_run,
    listen,
    proof,
    session_with,
    started,
)

C = 1
"""The channel of a session's first operation."""


def header(length: int, kind: int, channel: int) -> bytes:
    return struct.pack(">II", length << 8 | kind, channel)


def deep(opening: bytes, closing: bytes, depth: int) -> bytes:
    return b'{"event": ' + opening * depth + b"1" + closing * depth + b"}"


VIOLATIONS = {
    "garbage": b"\xff" * 1000,
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "unknown type": header(0, 0x0F, C),
    "no type": header(0, 0, C),
    "longest length": header(0xFFFFFF, FrameType.RESULT, C),
    "length beyond the limit": header(MAX_PAYLOAD + 1, FrameType.RESULT, C),
    "data length beyond the limit": header(MAX_DATA + 1, FrameType.STDOUT, C),
    "channel that is not open": encode(FrameType.STDOUT, C + 1, b"x"),
    "channel that was never opened": encode_json(FrameType.RESULT, 2**32 - 1, {}),
    "two results": encode_json(FrameType.RESULT, C, EXITED) * 2,
    "output after the result": encode_json(FrameType.RESULT, C, EXITED) + encode(FrameType.STDOUT, C, b"x"),
    "second HELLO": encode_json(FrameType.HELLO, 0, {"versions": [1, 1]}),
    "HELLO on a channel": encode_json(FrameType.HELLO, C, {}),
    "OPEN": encode_json(FrameType.OPEN, C, {"op": "info"}),
    "OPEN of a channel of its own": encode_json(FrameType.OPEN, C + 1, {"op": "info"}),
    "CLOSE": encode(FrameType.CLOSE, C),
    "RESULT on channel 0": encode_json(FrameType.RESULT, 0, {}),
    "CREDIT on channel 0": encode(FrameType.CREDIT, 0, bytes(4)),
    "PING on a channel": encode(FrameType.PING, C),
    "PONG on a channel": encode(FrameType.PONG, C),
    "PING that is too long": encode(FrameType.PING, 0, bytes(65)),
    "empty output": encode(FrameType.STDOUT, C),
    "END with a payload": encode(FrameType.END, C, b"x"),
    "CREDIT of 3 bytes": encode(FrameType.CREDIT, C, bytes(3)),
    "GAP of 4 bytes": encode(FrameType.GAP, C, bytes(4)),
    "data without credit": encode(FrameType.STDOUT, C, bytes(MAX_DATA)) * (WINDOW // MAX_DATA + 100),
    "endless events": encode_json(FrameType.EVENT, C, STARTED) * 5000,
    "large events": encode_json(FrameType.EVENT, C, {"event": "x" * 500_000}) * 3,
    "large event on channel 0": encode_json(FrameType.EVENT, 0, {"event": "x" * 5000}),
    "endless gaps": encode(FrameType.GAP, C, bytes(8)) * 5000,
    "endless ENDs": encode(FrameType.END, C) * 5000,
    "no JSON": encode(FrameType.EVENT, C, b"{'event': 'started'}"),
    "no payload": encode(FrameType.EVENT, C),
    "half a JSON object": encode(FrameType.RESULT, C, b'{"exit_code": 0'),
    "JSON that is no UTF-8": encode(FrameType.RESULT, C, b'{"\xff": 0}'),
    "JSON that is no object": encode(FrameType.RESULT, C, json.dumps([EXITED]).encode()),
    "null": encode(FrameType.ERROR, C, b"null"),
    "deep lists": encode(FrameType.EVENT, C, deep(b"[", b"]", 100_000)),
    "deep objects": encode(FrameType.EVENT, C, deep(b'{"a":', b"}", 100_000)),
    "number of a million digits": encode(FrameType.EVENT, C, b'{"pid": ' + b"9" * 1_000_000 + b"}"),
}


async def run(session: GuestSession) -> processes.Outcome:
    run = ProcessRun.of(Command(["true"]), {}, OutputMode(capture_bytes=1000))
    return await processes.execute(session, run)


async def read_to_the_end(stream: ProcessStream) -> None:
    while await stream.next():
        pass


async def assert_lost_for_good(session: GuestSession) -> None:
    assert isinstance(session.lost, WorkspaceLostError)
    for _ in range(2):
        with pytest.raises(WorkspaceLostError):
            await session.call({"op": "info"})
    assert await session.wait_lost() is session.lost


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_violation_loses_the_workspace(name: str) -> None:
    async def script(end: GuestEnd) -> None:
        await end.operation()
        await end.send_bytes(VIOLATIONS[name])

    async with session_with(script) as session:
        stream = await ProcessRun.of(Command(["true"]), {}, OutputMode()).open(session)
        async with stream:
            await session.wait_lost()
            if "result" not in name:  # it is believed when it came before the violation
                with pytest.raises(WorkspaceLostError):
                    await read_to_the_end(stream)
        await assert_lost_for_good(session)


async def test_violation_on_one_channel_ends_all_of_them() -> None:
    async def script(end: GuestEnd) -> None:
        for _ in range(3):
            await end.operation()
        await end.send(FrameType.CLOSE, 2)

    async with session_with(script) as session:
        ends = await asyncio.gather(*(run(session) for _ in range(3)), return_exceptions=True)
        assert [type(end) for end in ends] == [WorkspaceLostError] * 3
        await assert_lost_for_good(session)


@pytest.mark.parametrize("sent", [b"", b"\x00\x00", encode(FrameType.STDOUT, C, b"abcdef")[:-1]], ids=len)
async def test_link_that_ends_inside_a_frame_is_no_violation(sent: bytes) -> None:
    """A stream may break anywhere. The next call has a new link."""

    async def script(end: GuestEnd) -> None:
        channel, _ = await end.operation()
        if end.number == 0:
            await end.send_bytes(sent)
            await end.hang_up()
        await end.send_json(FrameType.RESULT, channel, {"link": end.number})

    async with session_with(script) as session:
        with pytest.raises(UnavailableError):
            await run(session)
        assert session.lost is None
        assert await session.call({"op": "info"}) == {"link": 1}


async def hang_up_at_the_first_operation(end: GuestEnd) -> None:
    await end.operation()
    await end.hang_up()


async def test_guest_that_hangs_up_during_an_execute() -> None:
    async with session_with(hang_up_at_the_first_operation) as session:
        with pytest.raises(UnavailableError):
            await run(session)


async def test_guest_that_hangs_up_during_a_stream_after_its_output() -> None:
    async def script(end: GuestEnd) -> None:
        channel, operation = await end.operation()
        await end.send_json(FrameType.EVENT, channel, started(operation))
        await end.send(FrameType.STDOUT, channel, b"so far")
        await end.hang_up()

    start = ProcessRun.of(Command(["true"]), {}, OutputMode())
    async with session_with(script) as session, await start.open(session) as stream:
        await stream.next()
        assert await stream.next() == Output(OutputSource.STDOUT, 0, b"so far")
        with pytest.raises(UnavailableError):
            await stream.next()


async def test_guest_that_hangs_up_during_an_execute_with_standard_input() -> None:
    async def script(end: GuestEnd) -> None:
        await end.operation()
        await end.expect(FrameType.DATA)
        await end.hang_up()

    async with session_with(script) as session:
        command = Command(["cat"], stdin=bytes(4 * WINDOW))
        with pytest.raises(UnavailableError):
            await processes.execute(session, ProcessRun.of(command, {}, OutputMode(capture_bytes=10)))


async def test_guest_that_hangs_up_during_an_upload() -> None:
    async def script(end: GuestEnd) -> None:
        await end.operation()
        await end.expect(FrameType.DATA)
        await end.hang_up()

    async with session_with(script) as session, await files.write(session, "f", None) as writer:
        with pytest.raises(UnavailableError):
            await writer.write(bytes(4 * WINDOW))
        with pytest.raises(UnavailableError):
            await writer.finish()


async def test_guest_that_hangs_up_during_a_download() -> None:
    async def script(end: GuestEnd) -> None:
        channel, _ = await end.operation()
        await end.send_json(FrameType.EVENT, channel, {"event": "file", **FILE})
        await end.send(FrameType.DATA, channel, b"abc")
        await end.hang_up()

    async with session_with(script) as session, await files.read(session, "f", 0, None) as reader:
        assert (await reader.begin()).size_bytes == 3
        chunks = reader.chunks()
        assert await anext(chunks) == b"abc"
        with pytest.raises(UnavailableError):
            await anext(chunks)


GREETING: dict[str, object] = {"versions": [1, 1], "guest": "fake", "nonce": NONCE}
BAD_GREETINGS = {
    "nothing in it": {},
    "no common version": GREETING | {"versions": [HIGHEST_VERSION + 1, 99]},
    "no range of versions": GREETING | {"versions": [1]},
    "versions that are no numbers": GREETING | {"versions": ["1", "1"]},
    "short nonce": GREETING | {"nonce": NONCE[:-1]},
    "nonce that is no text": GREETING | {"nonce": 32},
    "nonce that is not hex": GREETING | {"nonce": "x" * 32},
}
RAW_GREETINGS = {name: encode_json(FrameType.HELLO, 0, value) for name, value in BAD_GREETINGS.items()} | {
    "nonce of lone surrogates": encode(
        FrameType.HELLO, 0, b'{"versions": [1, 1], "nonce": "' + b"\\ud800" * 32 + b'"}'
    ),
    "no JSON": encode(FrameType.HELLO, 0, b"hello"),
    "another frame": encode(FrameType.PING, 0),
    "another channel": encode_json(FrameType.HELLO, 1, GREETING),
}


@pytest.mark.parametrize("greeting", RAW_GREETINGS.values(), ids=list(RAW_GREETINGS))
async def test_greeting_that_is_refused(greeting: bytes) -> None:
    async def script(end: GuestEnd) -> None:
        await end.send_bytes(greeting)

    async with session_with(script, handshake=False) as session:
        with pytest.raises(WorkspaceLostError):
            await session.call({"op": "info"})
        await assert_lost_for_good(session)


async def test_words_where_a_guest_is_expected_are_no_loss() -> None:
    """An engine that cannot start the way in says so like that, and can perhaps the next time."""

    async def script(end: GuestEnd) -> None:
        await end.send_bytes(b"OCI runtime exec failed: try again\r\n")

    async with session_with(script, handshake=False) as session:
        with pytest.raises(UnavailableError, match="no guest answered"):
            await session.call({"op": "info"})
        assert session.lost is None


IDENTITY: dict[str, object] = {"workspace_id": WORKSPACE_ID, "boot_id": "b"}


@pytest.mark.parametrize(
    "identity",
    [
        b'{"workspace_id": "ws-fake", "boot_id": "b"}',
        b'{"workspace_id": "ws-fake", "boot_id": "b", "proof": ""}',
        b'{"workspace_id": "ws-fake", "boot_id": "b", "proof": "' + b"0" * 64 + b'"}',
        b'{"workspace_id": "ws-fake", "boot_id": "b", "proof": "' + b"\\ud800" * 64 + b'"}',
        '{"workspace_id": "ws-fake", "boot_id": "b", "proof": "ä"}'.encode(),
        b'{"workspace_id": "ws-fake", "boot_id": "b", "proof": 0}',
        b"[]",
    ],
    ids=lambda identity: repr(identity[-20:]),
)
async def test_identity_without_proof_is_refused(identity: bytes) -> None:
    async def script(end: GuestEnd) -> None:
        await end.greet(GREETING)
        await end.expect(FrameType.HELLO)
        await end.send(FrameType.HELLO, 0, identity)

    async with session_with(script, handshake=False) as session:
        with pytest.raises(WorkspaceLostError):
            await session.call({"op": "info"})
        await assert_lost_for_good(session)


@pytest.mark.parametrize("side", ["service", "guest"])
async def test_proof_with_another_key_or_of_the_other_side_is_refused(side: str) -> None:
    """The other side's is what a workload could send back that only repeats what it is told."""

    async def script(end: GuestEnd) -> None:
        await end.greet(GREETING)
        answer = json.loads((await end.expect(FrameType.HELLO)).payload)
        key = KEY if side == "service" else bytes(32)
        await end.greet(IDENTITY | {"proof": proof(key, side, answer["nonce"])})

    async with session_with(script, handshake=False) as session:
        with pytest.raises(WorkspaceLostError, match="key"):
            await session.call({"op": "info"})


async def test_guest_of_another_workspace_is_refused() -> None:
    async with FakeGuest(listen, workspace_id="ws-other") as guest:
        session = GuestSession(WORKSPACE_ID, KEY, guest.connect)
        with pytest.raises(WorkspaceLostError, match="another"):
            await session.call({"op": "info"})
        assert guest.streams[0].closed
        await assert_lost_for_good(session)


@pytest.mark.parametrize("greets", [False, True])
async def test_handshake_that_stalls_may_be_tried_again(greets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "HANDSHAKE_TIMEOUT", 0.05)

    async def script(end: GuestEnd) -> None:
        if greets:
            await end.greet(GREETING)

    async with session_with(script, handshake=False) as session:
        for _ in range(2):
            with pytest.raises(UnavailableError, match=r"0\.05 s"):
                await session.call({"op": "info"})
        assert session.lost is None


async def test_handshake_that_is_cancelled_closes_its_stream() -> None:
    async with session_with(listen, handshake=False) as session:
        opening = asyncio.create_task(session.open({"op": "info"}))
        await let_tasks_run()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
