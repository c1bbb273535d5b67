"""The connection that calls a service's methods in this process: each kind of method, and how their calls end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import pytest

from agentic_isolation.errors import ClosedError, DeadlineError, InvalidArgumentError, UnavailableError
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.registry import SqliteRegistry
from agentic_isolation_service.rpc.calls import Call
from agentic_isolation_service.rpc.in_process import InProcessConnection


class Ends:
    """Takes note of generators that were left."""

    def __init__(self) -> None:
        self.requests = asyncio.Event()
        self.responses = asyncio.Event()


@pytest.fixture
async def connection() -> AsyncIterator[InProcessConnection]:
    async with SqliteRegistry.open(None) as registry:
        connection = InProcessConnection(Workspaces({}, registry, Identity.new()), (), retry_timeout=0)
        try:
            yield connection
        finally:
            await connection.aclose()


@pytest.fixture
def ends() -> Ends:
    return Ends()


async def numbers(ends: Ends) -> AsyncIterator[int]:
    try:
        for number in range(1000):
            yield number
    finally:
        ends.requests.set()


async def echo(requests: AsyncIterator[int], context: object, ends: Ends) -> AsyncIterator[int]:
    try:
        async for request in requests:
            yield request
    finally:
        await asyncio.sleep(0)
        ends.responses.set()


async def test_requests_and_responses_go_on_side_by_side(connection: InProcessConnection, ends: Ends) -> None:
    asked: asyncio.Queue[int] = asyncio.Queue()

    async def requests() -> AsyncIterator[int]:
        while True:
            yield await asked.get()

    responses = connection.stream(lambda request, context: echo(request, context, ends), requests())
    async with contextlib.aclosing(responses):
        for number in range(3):
            asked.put_nowait(number)
            assert await anext(responses) == number


async def test_all_responses_come_and_then_the_end(connection: InProcessConnection, ends: Ends) -> None:
    responses = connection.stream(lambda request, context: echo(request, context, ends), numbers(ends))
    assert [response async for response in responses] == list(range(1000))
    assert ends.requests.is_set()
    assert ends.responses.is_set()


async def test_one_task_runs_a_method_whoever_takes_its_responses(connection: InProcessConnection) -> None:
    tasks = set()

    async def method(request: object, context: object) -> AsyncIterator[int]:
        for number in range(3):
            tasks.add(asyncio.current_task())
            yield number

    responses = connection.stream(method, None)
    assert [await asyncio.create_task(anext(responses)) for _ in range(3)] == [0, 1, 2]
    await responses.aclose()
    assert len(tasks) == 1
    assert asyncio.current_task() not in tasks


async def test_a_slow_reader_holds_the_method_back(connection: InProcessConnection) -> None:
    given = 0

    async def method(request: object, context: object) -> AsyncIterator[int]:
        nonlocal given
        while True:
            given += 1
            yield given

    responses = connection.stream(method, None)
    assert await anext(responses) == 1
    for _ in range(100):
        await asyncio.sleep(0)
    assert given <= 3
    await responses.aclose()


async def test_leaving_ends_the_call_and_its_requests(connection: InProcessConnection, ends: Ends) -> None:
    responses = connection.stream(lambda request, context: echo(request, context, ends), numbers(ends))
    assert await anext(responses) == 0
    await responses.aclose()
    await ends.responses.wait()
    await ends.requests.wait()


async def test_what_fails_after_leaving_is_told_to_nobody(connection: InProcessConnection) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def fails_at_its_end(request: object, context: object) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            raise UnavailableError("the workspace was lost just then")

    responses = connection.stream(fails_at_its_end, None)
    assert await anext(responses) == 1
    await responses.aclose()
    await connection.aclose()
    del responses
    gc.collect()
    assert complaints == []


async def test_errors_come_as_they_are(connection: InProcessConnection) -> None:
    error = InvalidArgumentError("no", field="x")

    async def stream(request: object, context: object) -> AsyncIterator[int]:
        yield 1
        raise error

    def refuse(request: object, context: object) -> AsyncIterator[int]:
        raise error

    async def answer(request: object, context: object) -> None:
        raise error

    responses = connection.stream(stream, None)
    assert await anext(responses) == 1
    for attempt in (anext(responses), anext(connection.stream(refuse, None)), connection.call(answer, None)):
        with pytest.raises(InvalidArgumentError) as raised:
            await attempt
        assert raised.value is error


async def test_an_answer_that_does_not_come(connection: InProcessConnection) -> None:
    async def method(request: object, context: object) -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlineError):
        await connection.once(method, None, timeout=0.01)
    with pytest.raises(UnavailableError):
        await connection.attempt(method, None, connection.patience(), timeout=0.01)


async def test_requests_are_left_when_one_answer_ends_the_call(connection: InProcessConnection, ends: Ends) -> None:
    async def first(requests: AsyncIterator[int], context: object) -> int:
        return await anext(requests)

    assert await connection.once(first, numbers(ends)) == 0
    assert ends.requests.is_set()


async def test_closing_ends_what_is_under_way(connection: InProcessConnection, ends: Ends) -> None:
    async def forever(request: object, context: object) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ends.responses.set()

    responses = connection.stream(forever, None)
    assert await anext(responses) == 1
    waiting = asyncio.ensure_future(anext(responses))
    await asyncio.sleep(0)
    await connection.aclose()
    assert ends.responses.is_set()
    with pytest.raises(ClosedError):
        await waiting
    await connection.aclose()


async def test_closing_ends_a_call_that_answers_once(connection: InProcessConnection, ends: Ends) -> None:
    """Its caller is told so; that it was cancelled is nothing that its caller would know of."""

    async def forever(request: object, context: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ends.responses.set()

    waiting = [asyncio.ensure_future(connection.once(forever, None)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.gather(connection.aclose(), connection.aclose())
    assert ends.responses.is_set()
    for call in waiting:
        with pytest.raises(ClosedError):
            await call
        assert call.cancelling() == 0


async def test_call_that_is_cancelled_when_its_connection_is_closed_is_cancelled(
    connection: InProcessConnection,
) -> None:
    async def forever(request: object, context: object) -> None:
        await asyncio.Event().wait()

    waiting = asyncio.ensure_future(connection.once(forever, None))
    await asyncio.sleep(0)
    waiting.cancel()
    await connection.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert waiting.cancelling() == 1


async def test_use_after_closing(connection: InProcessConnection, ends: Ends) -> None:
    await connection.aclose()
    with pytest.raises(ClosedError):
        await anext(connection.stream(lambda request, context: echo(request, context, ends), numbers(ends)))
    with pytest.raises(ClosedError):
        await connection.call(lambda request, context: asyncio.sleep(0), None)


class Watch:
    """A layer that sees all that a call takes and gives."""

    def __init__(self) -> None:
        self.told: list[object] = []

    @contextlib.asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        async def pace(response: object) -> None:
            self.told.append(("gives", response))

        self.told.append((call.method, call.request))
        call.inspect, call.pace = lambda request: self.told.append(("takes", request)), pace
        try:
            yield
        finally:
            self.told.append((call.request, call.first_response, call.response))


async def test_layers_see_what_calls_take_and_give(ends: Ends) -> None:
    async def answer(request: object, context: object) -> str:
        return f"{request}!"

    async def upload(requests: AsyncIterator[int], context: object) -> int:
        return sum([request async for request in requests if request < 3])

    async def stream(request: int, context: object) -> AsyncIterator[int]:
        yield request + 1
        yield request + 2

    async def exchange(requests: AsyncIterator[int], context: object) -> AsyncIterator[int]:
        async for request in requests:
            yield -request

    async def three() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    watch = Watch()
    async with SqliteRegistry.open(None) as registry:
        connection = InProcessConnection(Workspaces({}, registry, Identity.new()), (watch,), retry_timeout=0)
        assert await connection.call(answer, "hi") == "hi!"
        assert watch.told == [("answer", "hi"), ("gives", "hi!"), ("hi", "hi!", "hi!")]
        watch.told.clear()
        assert await connection.call(upload, three()) == 3
        assert watch.told == [("upload", None), ("takes", 0), ("takes", 1), ("takes", 2), ("gives", 3), (0, 3, 3)]
        watch.told.clear()
        assert [response async for response in connection.stream(stream, 5)] == [6, 7]
        assert watch.told == [("stream", 5), ("gives", 6), ("gives", 7), (5, 6, 7)]
        watch.told.clear()
        assert [response async for response in connection.stream(exchange, three())] == [0, -1, -2]
        assert watch.told == [
            ("exchange", 0), ("gives", 0), ("takes", 1), ("gives", -1), ("takes", 2), ("gives", -2), (0, 0, -2),
        ]  # fmt: skip
        await connection.aclose()
