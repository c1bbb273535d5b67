"""A link on which nothing comes: the guest is asked whether it is there, and the link lost when it does not answer."""

from __future__ import annotations

import asyncio
import time

import pytest

from agentic_isolation import UnavailableError
from agentic_isolation_service.guest import link as link_module
from agentic_isolation_service.guest.frames import MAX_DATA, FrameType, encode
from agentic_isolation_service.guest.link import SILENCE_TO_LOSE, SILENCE_TO_PING
from tests.unit.fake_guest import GuestEnd, link_to, listen, session_with

PING, LOSE = 0.2, 0.4
"""Seconds in place of the real ones."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "SILENCE_TO_PING", PING)
    monkeypatch.setattr(link_module, "SILENCE_TO_LOSE", LOSE)


def test_a_guest_has_time_to_answer() -> None:
    assert 0 < SILENCE_TO_PING < SILENCE_TO_LOSE


@pytest.mark.parametrize("channels", [0, 3])
async def test_silent_guest_is_asked_once_and_then_lost(impatient: None, channels: int) -> None:
    frames: list[FrameType] = []

    async def script(end: GuestEnd) -> None:
        end.answers_pings = False
        while True:
            frames.append((await end.receive()).type)

    began = time.monotonic()
    async with link_to(script) as link:
        receiving = [asyncio.create_task(link.open_channel({"op": "run"}).receive()) for _ in range(channels)]
        reason = await link.wait_lost()
        assert not reason.protocol_error
        assert "nothing came" in str(reason)
        assert time.monotonic() - began >= LOSE
        ends = await asyncio.gather(*receiving, return_exceptions=True)
        assert all(end is reason for end in ends)
    assert frames == [FrameType.OPEN] * channels + [FrameType.PING]


async def test_guest_that_answers_is_kept_for_as_long_as_it_likes(impatient: None) -> None:
    pings = 0
    enough = asyncio.Event()

    async def script(end: GuestEnd) -> None:
        nonlocal pings
        end.answers_pings = False
        while True:
            frame = await end.expect(FrameType.PING)
            await end.send(FrameType.PONG, 0, frame.payload)
            pings += 1
            if pings == 3:
                enough.set()

    async with link_to(script) as link:
        await enough.wait()
        assert link.lost is None


@pytest.mark.usefixtures("impatient")
async def test_guest_that_is_slow_to_read_is_kept_while_it_says_anything() -> None:
    """It takes none of what it is sent, PING included, and its output trickles."""
    trickled = 0
    read_on = asyncio.Event()

    async def script(end: GuestEnd) -> None:
        nonlocal trickled
        channel, _ = await end.operation()
        for _ in range(10):
            await asyncio.sleep(LOSE / 4)
            await end.send(FrameType.STDOUT, channel, b".")
            trickled += 1
        read_on.set()
        while (frame := await end.receive()).type is not FrameType.END:
            if frame.type is FrameType.DATA:
                await end.grant(channel, len(frame.payload))
        await end.send_json(FrameType.RESULT, channel, {})

    async with link_to(script) as link:
        channel = link.open_channel({"op": "write"})
        sending = asyncio.create_task(channel.send(bytes(8 * MAX_DATA)))
        await read_on.wait()
        assert link.lost is None
        assert await sending
        channel.finish()
        while (await channel.receive()).type is not FrameType.RESULT:
            pass
    assert trickled == 10


async def test_event_loop_that_is_held_up_is_not_the_guests_silence(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came meanwhile is read before the guest is blamed."""

    async def script(end: GuestEnd) -> None:
        while True:
            await end.receive()

    async with link_to(script) as link:
        for _ in range(3):
            await asyncio.sleep(PING / 2)
            time.sleep(2 * LOSE)  # noqa: ASYNC251  that is the fault
        await asyncio.sleep(0)
        assert link.lost is None
        channel = link.open_channel({"op": "info"})
        assert link.lost is None
        channel.abandon()


async def test_calls_on_a_silent_guest_say_that_it_may_be_tried_again(impatient: None) -> None:
    """And the next one makes a link of its own, to a guest that has come to its senses."""

    async def script(end: GuestEnd) -> None:
        if end.number == 0:
            await listen(end)
            end.answers_pings = False
            while True:
                await end.receive()
        while True:
            channel, _ = await end.operation()
            await end.send_json(FrameType.RESULT, channel, {"link": end.number})

    async with session_with(script) as session:
        with pytest.raises(UnavailableError, match="nothing came from the guest"):
            await session.call({"op": "info"})
        assert await session.call({"op": "info"}) == {"link": 1}


async def test_stream_that_takes_nothing_is_given_up(impatient: None) -> None:
    """The writer waits for room that never comes."""

    async def script(end: GuestEnd) -> None:
        await asyncio.Event().wait()

    async with link_to(script) as link:
        for _ in range(100):
            link.post(encode(FrameType.PING, 0, bytes(64)) * 100)
        assert "nothing came" in str(await link.wait_lost())
