"""Links and channels with a guest that keeps the protocol: operations, credit in both directions, loss of interest."""

from __future__ import annotations

import asyncio

import pytest

from agentic_isolation_service.guest import link as link_module
from agentic_isolation_service.guest.channel import MAX_JOINED, Channel
from agentic_isolation_service.guest.frames import (
    MAX_DATA,
    WINDOW,
    FrameType,
    decode_uint32,
    encode,
)
from agentic_isolation_service.guest.link import LinkLostError
from tests.unit.fake_guest import (
    EXITED,
    STARTED,
    WORKSPACE_ID,
    GuestEnd,
    let_tasks_run,
    link_to,
    listen,
)


async def receive_all(channel: Channel) -> list[tuple[FrameType, bytes]]:
    """Returns what a channel received until its end: types, and what data frames held."""
    received: list[tuple[FrameType, bytes]] = []
    while not received or received[-1][0] not in (FrameType.RESULT, FrameType.ERROR):
        message = await channel.receive()
        received.append((message.type, bytes(message.data)))
    return received


async def test_operation_with_event_output_and_result() -> None:
    async def script(end: GuestEnd) -> None:
        channel, operation = await end.operation()
        assert operation == {"op": "run", "argv": ["ls"]}
        await end.send_json(FrameType.EVENT, channel, STARTED)
        await end.send(FrameType.STDOUT, channel, b"out")
        await end.send(FrameType.STDERR, channel, b"err")
        await end.send_json(FrameType.RESULT, channel, EXITED)

    async with link_to(script) as link:
        assert (link.workspace_id, link.boot_id, link.lost) == (WORKSPACE_ID, "b", None)
        channel = link.open_channel({"op": "run", "argv": ["ls"]})
        event, stdout, stderr, result = [await channel.receive() for _ in range(4)]
        assert event.value == STARTED
        assert (stdout.type, stdout.data) == (FrameType.STDOUT, b"out")
        assert (stderr.type, stderr.data) == (FrameType.STDERR, b"err")
        assert (result.type, result.value) == (FrameType.RESULT, EXITED)
        assert channel.ended


async def test_channels_do_not_wait_for_each_other() -> None:
    """Answers come in another order than the questions, and one channel's reader never reads."""

    async def script(end: GuestEnd) -> None:
        channels = [(await end.operation())[0] for _ in range(3)]
        for _ in range(WINDOW // MAX_DATA):
            await end.send(FrameType.STDOUT, channels[0], bytes(MAX_DATA))
        for channel in reversed(channels[1:]):
            await end.send_json(FrameType.RESULT, channel, {"channel": channel})

    async with link_to(script) as link:
        _unread, first, second = (link.open_channel({"op": "info"}) for _ in range(3))
        assert (await second.receive()).value == {"channel": second.id}
        assert (await first.receive()).value == {"channel": first.id}


async def test_sender_stops_at_the_window_and_goes_on_by_grants() -> None:
    granted = 100_000
    arrived = 0
    window_is_full, go_on = asyncio.Event(), asyncio.Event()

    async def script(end: GuestEnd) -> None:
        nonlocal arrived
        channel, _ = await end.operation()
        while (frame := await end.receive()).type is FrameType.DATA:
            arrived += len(frame.payload)
            if arrived == WINDOW:
                window_is_full.set()
                await go_on.wait()
                await end.grant(channel, granted)
        assert frame.type is FrameType.END
        await end.send_json(FrameType.RESULT, channel, {})

    async with link_to(script) as link, asyncio.TaskGroup() as group:
        channel = link.open_channel({"op": "write"})
        sending = group.create_task(channel.send(bytes(WINDOW + granted)))
        await window_is_full.wait()
        await let_tasks_run()
        assert not sending.done()
        go_on.set()
        assert await sending
        channel.finish()
        await channel.receive()
        assert arrived == WINDOW + granted


async def test_grants_never_add_up_to_more_than_the_service_would_buffer() -> None:
    """A guest that grants everything and reads nothing must not move an upload into the service's memory."""

    async def script(end: GuestEnd) -> None:
        channel, _ = await end.operation()
        for _ in range(10):
            await end.grant(channel, 2**32 - 1)
        await asyncio.Event().wait()

    async with link_to(script) as link:
        channel = link.open_channel({"op": "write"})
        await let_tasks_run()
        sent = 0

        async def upload() -> None:
            nonlocal sent
            while True:
                await channel.send(bytes(MAX_DATA))
                sent += MAX_DATA

        uploading = asyncio.create_task(upload())
        for _ in range(5):
            await let_tasks_run()
        uploading.cancel()
        await asyncio.gather(uploading, return_exceptions=True)
        assert sent <= 8 * WINDOW


async def test_send_ends_when_the_guest_ends_the_channel() -> None:
    async def script(end: GuestEnd) -> None:
        channel, _ = await end.operation()
        await end.expect(FrameType.DATA)
        await end.send_json(FrameType.ERROR, channel, {"reason": "NO_SPACE", "message": "full"})

    async with link_to(script) as link:
        channel = link.open_channel({"op": "write"})
        assert not await channel.send(bytes(2 * WINDOW))
        assert (await channel.receive()).value["reason"] == "NO_SPACE"


async def test_receiver_grants_as_it_consumes_and_not_before() -> None:
    grants: list[int] = []
    total = 3 * WINDOW
    filled = asyncio.Event()

    async def script(end: GuestEnd) -> None:
        channel, _ = await end.operation()
        credit = WINDOW
        for _ in range(total // MAX_DATA):
            if credit <= 0:
                filled.set()
                grants.append(decode_uint32((await end.expect(FrameType.CREDIT)).payload))
                credit += grants[-1]
            await end.send(FrameType.DATA, channel, bytes(MAX_DATA))
            credit -= MAX_DATA
        await end.send_json(FrameType.RESULT, channel, {})

    async with link_to(script) as link:
        channel = link.open_channel({"op": "read"})
        await filled.wait()
        await let_tasks_run()
        assert not grants
        received = await receive_all(channel)
        assert sum(len(data) for _, data in received) == total
        assert 0 < sum(grants) <= total


async def test_small_frames_are_merged_for_a_slow_reader_in_order() -> None:
    lines = [b"line %d\n" % number for number in range(8000)]

    async def script(end: GuestEnd) -> None:
        channel, _ = await end.operation()
        await end.send_bytes(b"".join(encode(FrameType.STDOUT, channel, line) for line in lines))
        await end.send(FrameType.STDERR, channel, b"between")
        await end.send(FrameType.STDOUT, channel, b"last")
        await end.send_json(FrameType.RESULT, channel, {})

    async with link_to(script) as link:
        channel = link.open_channel({"op": "run"})
        while not channel.ended:
            await let_tasks_run()
        received = await receive_all(channel)
        stdout, *rest = received
        assert stdout == (FrameType.STDOUT, b"".join(lines))
        assert rest[:2] == [(FrameType.STDERR, b"between"), (FrameType.STDOUT, b"last")]
        assert MAX_DATA < max(len(data) for _, data in received) <= MAX_JOINED


async def test_abandoned_channel_lives_until_the_guest_ends_it() -> None:
    """CLOSE is said once; what comes after it is dropped, and its credit given back, so that nothing stalls."""
    after_close = 4 * WINDOW

    async def script(end: GuestEnd) -> None:
        channel, _ = await end.operation()
        await end.send(FrameType.STDOUT, channel, b"unread")
        await end.expect(FrameType.CLOSE)
        credit = WINDOW - len(b"unread")
        for _ in range(after_close // MAX_DATA):
            while credit <= 0:
                credit += decode_uint32((await end.expect(FrameType.CREDIT)).payload)
            await end.send(FrameType.STDOUT, channel, bytes(MAX_DATA))
            credit -= MAX_DATA
        await end.send_json(FrameType.ERROR, channel, {"reason": "CANCELLED", "message": ""})
        next_channel, operation = await end.operation()
        assert operation == {"op": "info"}
        await end.send_json(FrameType.RESULT, next_channel, {})

    async with link_to(script) as link:
        channel = link.open_channel({"op": "run"})
        await let_tasks_run()
        channel.abandon()
        channel.abandon()
        while not channel.ended:
            await let_tasks_run()
        channel.abandon()
        channel.finish()
        assert (await link.open_channel({"op": "info"}).receive()).type is FrameType.RESULT


async def test_ping_is_answered_with_its_payload() -> None:
    async def script(end: GuestEnd) -> None:
        await end.send(FrameType.PONG, 0, b"nobody asked")
        channel, _ = await end.operation()
        for payload in (b"", b"p" * 64):
            await end.send(FrameType.PING, 0, payload)
            assert (await end.expect(FrameType.PONG)).payload == payload
        await end.send_json(FrameType.RESULT, channel, {})

    async with link_to(script) as link:
        await link.open_channel({"op": "info"}).receive()


async def test_pings_of_a_guest_that_does_not_read_fill_no_memory() -> None:
    pings = b"".join(encode(FrameType.PING, 0, b"p" * 64) for _ in range(1000))
    sent = asyncio.Event()

    async def script(end: GuestEnd) -> None:
        for _ in range(100):
            await end.send_bytes(pings)
        sent.set()
        answers = 0
        while (await end.receive()).type is FrameType.PONG:
            answers += 1
        # What went into the stream's own buffer, and as many as may wait.
        assert answers < 10_000

    async with link_to(script) as link:
        await sent.wait()
        link.open_channel({"op": "info"})
        await let_tasks_run()


async def test_link_that_the_guest_closes_is_lost_for_its_channels_after_what_they_received() -> None:
    async def script(end: GuestEnd) -> None:
        channel, _ = await end.operation()
        await end.send(FrameType.STDOUT, channel, b"last words")
        await end.hang_up()

    async with link_to(script) as link:
        channel = link.open_channel({"op": "run"})
        reason = await link.wait_lost()
        assert not reason.protocol_error
        assert (await channel.receive()).data == b"last words"
        for _ in range(2):
            with pytest.raises(LinkLostError):
                await channel.receive()
        assert not await channel.send(b"more")
        with pytest.raises(LinkLostError):
            link.open_channel({"op": "info"})


async def test_closing_a_link_ends_its_channels_and_may_be_done_twice() -> None:
    async with link_to(listen) as link:
        channel = link.open_channel({"op": "run"})
        receiving = asyncio.create_task(channel.receive())
        await let_tasks_run()
        await asyncio.gather(link.aclose(), link.aclose())
        with pytest.raises(LinkLostError, match="closed"):
            await receiving


async def test_channel_numbers_go_round_and_pass_over_open_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_MAX_CHANNEL", 4)

    async def script(end: GuestEnd) -> None:
        for _ in range(6):
            channel, operation = await end.operation()
            if operation["answer"]:
                await end.send_json(FrameType.RESULT, channel, {})

    async with link_to(script) as link:
        lasting = link.open_channel({"op": "run", "answer": False})
        numbers = []
        for _ in range(5):
            channel = link.open_channel({"op": "info", "answer": True})
            numbers.append(channel.id)
            await channel.receive()
        assert lasting.id == 1
        assert numbers == [2, 3, 4, 2, 3]
