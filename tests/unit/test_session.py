"""A session's links come and go; what is lost for good is told apart from what may be tried again."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from agentic_isolation import (
    IsolationError,
    ProcessLimitError,
    ProviderUnavailableError,
    UnavailableError,
    WorkspaceLostError,
    WorkspaceNotFoundError,
)
from agentic_isolation_service.guest import session as guest_session
from agentic_isolation_service.guest.frames import FrameType
from agentic_isolation_service.guest.session import GuestSession
from tests.unit.fake_guest import (
    KEY,
    PATIENCE,
    WORKSPACE_ID,
    FakeGuest,
    GuestEnd,
    ServiceStream,
    let_tasks_run,
    listen,
    session_with,
    stream_in_memory,
)


async def test_more_channels_than_a_guest_takes_are_refused_and_the_others_go_on() -> None:
    """A guest ends a link with more than 4,096 channels, and with it every call that is under way."""

    async def script(end: GuestEnd) -> None:
        first, _ = await end.operation()
        for _ in range(4095):
            await end.operation()
        await end.send_json(FrameType.RESULT, first, {})
        channel, _ = await end.operation()
        await end.send_json(FrameType.RESULT, channel, {"after": True})

    async with session_with(script) as session:
        channels = [await session.open({"op": "run"}) for _ in range(4096)]
        with pytest.raises(ProcessLimitError, match="4096"):
            await session.open({"op": "run"})
        await channels[0].receive()
        assert await session.call({"op": "info"}) == {"after": True}


async def test_session_uses_one_link_and_another_when_that_has_ended() -> None:
    async def script(end: GuestEnd) -> None:
        for _ in range(2):
            channel, _ = await end.operation()
            await end.send_json(FrameType.RESULT, channel, {"link": end.number})
        await end.hang_up()

    async with session_with(script) as session:
        answers = []
        for _ in range(4):
            try:
                answers.append(await session.call({"op": "info"}))
            except UnavailableError:
                answers.append(await session.call({"op": "info"}))
        assert answers == [{"link": 0}, {"link": 0}, {"link": 1}, {"link": 1}]
        assert (session.counts.reconnects, session.counts.lost) == (1, 0)


async def test_guest_is_told_to_end_on_the_link_that_there_is() -> None:
    told = asyncio.Event()

    async def script(end: GuestEnd) -> None:
        channel, _ = await end.operation()
        await end.send_json(FrameType.RESULT, channel, {})
        _, operation = await end.operation()
        assert operation == {"op": "shutdown"}
        told.set()

    async with session_with(script) as session:
        assert not await session.shut_down(), "no link is made for that"
    async with session_with(script) as session:
        await session.call({"op": "info"})
        assert await session.shut_down()
        async with asyncio.timeout(PATIENCE):
            await told.wait()
        with pytest.raises(WorkspaceNotFoundError, match="destroyed"):
            await session.call({"op": "info"})


async def test_what_a_killed_command_came_to_is_not_told_once_its_guest_was_told_to_end() -> None:
    async def script(end: GuestEnd) -> None:
        running, _ = await end.operation()
        await end.operation()  # to shut down
        await end.send_json(FrameType.RESULT, running, {"signal": 9})

    async with session_with(script) as session:
        running = asyncio.create_task(session.call({"op": "run"}))
        await let_tasks_run()
        assert await session.shut_down()
        with pytest.raises(WorkspaceNotFoundError, match="destroyed"):
            await running


@pytest.mark.parametrize(
    ("reason", "kind"), [("lifetime", WorkspaceNotFoundError), ("signal", WorkspaceLostError)], ids=["end", "signal"]
)
async def test_what_is_at_its_end_is_not_found_and_what_is_ended_otherwise_is_lost(
    reason: str, kind: type[IsolationError]
) -> None:
    async def script(end: GuestEnd) -> None:
        running, _ = await end.operation()
        await end.send_json(FrameType.EVENT, 0, {"event": "ending", "reason": reason})
        asked, _ = await end.operation()
        await end.send_json(FrameType.ERROR, asked, {"reason": "SHUTTING_DOWN", "message": "the guest is ending"})
        assert running != asked
        await end.hang_up()

    async with FakeGuest(script) as guest:

        async def connect() -> ServiceStream:
            if guest.streams:
                raise ConnectionRefusedError("nothing listens any more")
            return await guest.connect()

        session = GuestSession(WORKSPACE_ID, KEY, connect)
        running = asyncio.create_task(session.call({"op": "run"}))
        watching = asyncio.create_task(session.wait_lost())
        await let_tasks_run()
        with pytest.raises(kind, match="ending"):
            await session.call({"op": "info"})
        for call in (running, session.call({"op": "info"})):
            with pytest.raises(kind, match="gone"):
                await call
        assert await watching is session.lost
        assert session.ended == (kind is WorkspaceNotFoundError)
        await session.aclose()


async def test_concurrent_calls_share_one_new_link() -> None:
    async def script(end: GuestEnd) -> None:
        while True:
            channel, _ = await end.operation()
            await end.send_json(FrameType.RESULT, channel, {"link": end.number})

    async with session_with(script) as session:
        answers = await asyncio.gather(*(session.call({"op": "info"}) for _ in range(20)))
        assert answers == [{"link": 0}] * 20


async def test_closed_session_opens_no_new_link() -> None:
    async with session_with(listen) as session:
        await session.open({"op": "info"})
        await session.aclose()
        with pytest.raises(UnavailableError):
            await session.open({"op": "info"})


async def test_session_that_is_closed_while_it_connects_keeps_no_link() -> None:
    go_on = asyncio.Event()

    async def script(end: GuestEnd) -> None:
        await go_on.wait()
        await end.shake_hands()

    async with session_with(script, handshake=False) as session:
        opening = asyncio.create_task(session.open({"op": "info"}))
        await let_tasks_run()
        await session.aclose()
        go_on.set()
        with pytest.raises(UnavailableError):
            await opening


async def test_place_that_is_gone_is_lost() -> None:
    async def connect() -> ServiceStream:
        raise FileNotFoundError("no such socket")

    session = GuestSession(WORKSPACE_ID, KEY, connect)
    for _ in range(2):
        with pytest.raises(WorkspaceLostError, match="no such socket"):
            await session.call({"op": "info"})
    assert await session.wait_lost() is session.lost
    assert (session.counts.lost, session.counts.link_failures) == (1, 0)


async def test_guest_that_hangs_up_again_and_again_is_not_called_back_without_a_pause() -> None:
    async def script(end: GuestEnd) -> None:
        await end.hang_up()

    async with asyncio.timeout(PATIENCE), FakeGuest(script) as guest:
        session = GuestSession(WORKSPACE_ID, KEY, guest.connect)
        watching = asyncio.create_task(session.wait_lost())
        for _ in range(50):
            await let_tasks_run()
        assert 1 <= len(guest.streams) <= 3
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await session.aclose()


async def test_guest_that_cannot_be_reached_is_tried_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """While an engine is away there may be a thousand such, and what else the service does must not suffer from it."""
    monkeypatch.setattr(guest_session, "_RECONNECT_PAUSE", 0.01)
    monkeypatch.setattr(guest_session, "_SECOND_TRY", 0)
    attempts = 0

    async def connect() -> ServiceStream:
        nonlocal attempts
        attempts += 1
        raise ProviderUnavailableError("the engine is away")

    session = GuestSession(WORKSPACE_ID, KEY, connect)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await session.wait_lost()
    await session.aclose()
    assert 5 < attempts < 40


async def test_lost_workspace_does_not_collect_its_callers_frames() -> None:
    """One error for all callers would hold their frames, with all that they were given, for as long as it lasts."""

    async def script(end: GuestEnd) -> None:
        await end.send_bytes(b"nonsense")

    async with session_with(script) as session:
        depths = []
        for _ in range(3):
            with pytest.raises(WorkspaceLostError) as caught:
                await session.call({"op": "info"})
            depths.append(len(list(traceback.walk_tb(caught.value.__traceback__))))
        assert depths[1] == depths[2]
        assert session.lost is not None
        assert session.lost.__traceback__ is None


async def test_all_who_want_a_link_share_an_attempt_and_its_failure() -> None:
    """Else each would wait for its own turn with an engine that does not answer."""
    attempts = 0
    go_on = asyncio.Event()

    async def connect() -> ServiceStream:
        nonlocal attempts
        attempts += 1
        await go_on.wait()
        raise ProviderUnavailableError("the engine at nowhere does not answer")

    session = GuestSession(WORKSPACE_ID, KEY, connect)
    calls = [asyncio.create_task(session.call({"op": "info"})) for _ in range(20)]
    await let_tasks_run()
    calls[0].cancel()
    await let_tasks_run()
    assert attempts == 1
    go_on.set()
    first, *others = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert len({id(error) for error in others}) == 19, "each has an error of its own"
    for error in others:
        assert isinstance(error, ProviderUnavailableError)
        assert "nowhere" in str(error)
    assert attempts <= 2, "one that fails at once is tried a second time"
    assert (session.counts.link_failures, session.counts.lost) == (attempts, 0)
    assert session.lost is None
    await session.aclose()


async def test_place_that_is_just_ending_is_asked_again_before_it_is_called_unavailable() -> None:
    """A container that was killed may for a moment let a bridge in, which then ends without a word."""
    attempts = 0

    async def connect() -> ServiceStream:
        nonlocal attempts
        attempts += 1
        if attempts > 1:
            raise FileNotFoundError("its container is gone")
        service_end, guest_end = stream_in_memory()
        await guest_end.aclose()
        return service_end

    session = GuestSession(WORKSPACE_ID, KEY, connect)
    with pytest.raises(WorkspaceLostError, match="gone"):
        await session.call({"op": "info"})
    assert attempts == 2
    await session.aclose()


async def test_closing_a_session_ends_its_attempt_to_connect() -> None:
    cancelled = False

    async def connect() -> ServiceStream:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise
        raise AssertionError("nothing wakes it")

    session = GuestSession(WORKSPACE_ID, KEY, connect)
    calls = [asyncio.create_task(session.call({"op": "info"})) for _ in range(3)]
    await let_tasks_run()
    await session.aclose()
    assert cancelled
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, UnavailableError)
