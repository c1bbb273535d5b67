"""Requests that come again are carried out once."""

from __future__ import annotations

import asyncio

import pytest

from agentic_isolation import InvalidArgumentError, UnavailableError
from agentic_isolation.models import WorkspaceConfig, WorkspaceInfo, WorkspaceState
from agentic_isolation_service.core.caller import OPERATOR
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.ports import Place, PlaceSpec
from agentic_isolation_service.core.requests import SharedCall, SharedCalls
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.registry import SqliteRegistry
from tests.unit.fake_guest import PATIENCE, let_tasks_run
from tests.unit.fake_provider import FakeProvider, holding, just_made, serve_honestly


class Run:
    """A coroutine to share, which waits until it is told how to end."""

    def __init__(self) -> None:
        self.starts = 0
        self.cancelled = False
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.may_be_cancelled = asyncio.Event()
        self.may_be_cancelled.set()

    async def __call__(self) -> str:
        self.starts += 1
        try:
            return await self.end
        except asyncio.CancelledError:
            await self.may_be_cancelled.wait()
            self.cancelled = True
            raise


async def test_calls_of_one_id_are_one_call_while_it_is_under_way() -> None:
    calls: SharedCalls[str] = SharedCalls()
    run, other = Run(), Run()
    call = calls.join("", "a", "content", run)
    assert calls.join("", "a", "content", run) is call
    assert calls.join("", "b", "content", other) is not call
    waiting = asyncio.create_task(call.wait())
    await let_tasks_run()
    with pytest.raises(InvalidArgumentError, match="new id") as caught:
        calls.join("", "a", "other content", other)
    assert caught.value.field == "request_id"
    run.end.set_result("done")
    assert await waiting == "done"
    assert calls.join("", "a", "other content", other) is not call, "it is over"


async def test_calls_without_id_are_never_joined() -> None:
    calls: SharedCalls[str] = SharedCalls()
    assert calls.join("", "", "content", Run()) is not calls.join("", "", "content", Run())


@pytest.mark.parametrize("request_id", ["with space", "x" * 129, "ü", "new\nline"])
async def test_malformed_id_is_refused(request_id: str) -> None:
    async with holding({"fake": lambda: FakeProvider(serve_honestly)}) as workspaces:
        with pytest.raises(InvalidArgumentError) as caught:
            await workspaces.create(OPERATOR, WorkspaceConfig(provider="fake"), request_id)
        assert caught.value.field == "request_id"


async def test_all_who_wait_get_the_one_result() -> None:
    run = Run()
    call = SharedCall(run)
    waiting = [asyncio.create_task(call.wait()) for _ in range(3)]
    await let_tasks_run()
    run.end.set_result("done")
    assert await asyncio.gather(*waiting) == ["done"] * 3
    assert await call.wait() == "done"
    assert run.starts == 1


async def test_all_who_wait_get_the_one_error() -> None:
    run = Run()
    call = SharedCall(run)
    waiting = [asyncio.create_task(call.wait()) for _ in range(2)]
    await let_tasks_run()
    run.end.set_exception(UnavailableError("not now"))
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [UnavailableError] * 2


async def test_run_goes_on_until_the_last_who_waits_is_cancelled() -> None:
    run = Run()
    call = SharedCall(run)
    first, second = (asyncio.create_task(call.wait()) for _ in range(2))
    await let_tasks_run()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert run.cancelled


async def test_joining_a_run_that_is_being_cancelled_is_told_to_try_again() -> None:
    """A retry may come while the first attempt is still cleaned up; being cancelled is not its fate."""
    run = Run()
    run.may_be_cancelled.clear()
    call = SharedCall(run)
    first = asyncio.create_task(call.wait())
    await let_tasks_run()
    first.cancel()
    await let_tasks_run()
    retry = asyncio.create_task(call.wait())
    await let_tasks_run()
    run.may_be_cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(UnavailableError):
        await retry
    assert run.starts == 1


async def test_repeated_creation_makes_one_workspace_whatever_the_order_of_its_labels() -> None:
    provider = FakeProvider(serve_honestly)
    config = WorkspaceConfig(provider="fake", labels={"a": "1", "b": "2"}, environment={"A": "1", "B": "2"})
    again = WorkspaceConfig(provider="fake", labels={"b": "2", "a": "1"}, environment={"B": "2", "A": "1"})
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}) as workspaces:
        made = await asyncio.gather(
            *(workspaces.create(OPERATOR, asked, "request-1") for asked in (config, again, config))
        )
        assert {info.id for info in made} == set(provider.guests)
        assert len(provider.guests) == 1
        for other in ({"labels": {"a": "1"}}, {"environment": {"A": "changed"}}):
            changed = WorkspaceConfig(provider="fake", **other)  # type: ignore[arg-type]
            with pytest.raises(InvalidArgumentError):
                await workspaces.create(OPERATOR, changed, "request-1")


async def test_failed_creation_may_be_tried_again_under_its_id() -> None:
    class FailsOnce(FakeProvider):
        failed = False

        async def create(self, spec: PlaceSpec) -> Place:
            if not self.failed:
                self.failed = True
                raise UnavailableError("not now")
            return await super().create(spec)

    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: FailsOnce(serve_honestly)}) as workspaces:
        config = WorkspaceConfig(provider="fake")
        with pytest.raises(UnavailableError):
            await workspaces.create(OPERATOR, config, "request-1")
        assert (await workspaces.create(OPERATOR, config, "request-1")).provider == "fake"


async def test_run_that_is_done_when_the_last_who_waits_is_cancelled_is_known_as_unwanted() -> None:
    run = Run()
    call = SharedCall(run)
    waiting = asyncio.create_task(call.wait())
    await let_tasks_run()
    run.end.set_result("done")
    await asyncio.sleep(0)  # now the run is done, and who waits for it has not been woken
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert call.unwanted == "done"


@pytest.mark.parametrize("request_id", ["", "request-1"])
async def test_creation_that_is_cancelled_at_any_turn_of_the_loop_leaves_nothing(request_id: str) -> None:
    provider = FakeProvider(serve_honestly)
    config = WorkspaceConfig(provider="fake")
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}) as workspaces:
        for turns in range(1000):
            creating = asyncio.create_task(workspaces.create(OPERATOR, config, request_id))
            for _ in range(turns):
                await asyncio.sleep(0)
            creating.cancel()
            await asyncio.wait([creating])
            if not creating.cancelled():
                break
            assert not provider.guests, f"cancelled after {turns} turns"
            assert workspaces.page(OPERATOR, {}, 10, "") == ([], "")
        else:
            raise AssertionError("a creation takes fewer turns")
        assert list(provider.guests) == [creating.result().id]


async def test_repeat_of_a_creation_that_is_just_being_taken_back_makes_another_workspace() -> None:
    """A connection that breaks just when a creation is done looks as if it were cancelled, and is repeated."""
    removing = asyncio.Event()

    class SlowProvider(FakeProvider):
        async def destroy(self, place: Place, *, ending: bool = False) -> None:
            await removing.wait()
            await super().destroy(place, ending=ending)

    provider = SlowProvider(serve_honestly)
    config = WorkspaceConfig(provider="fake")
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}) as workspaces:
        creating = asyncio.create_task(workspaces.create(OPERATOR, config, "request-1"))
        await just_made(workspaces)
        creating.cancel()
        await let_tasks_run()
        made = await workspaces.create(OPERATOR, config, "request-1")
        removing.set()
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert made.state is WorkspaceState.READY
        assert list(provider.guests) == [made.id]
        assert await workspaces.create(OPERATOR, config, "request-1") == made


async def cancel_at_each_turn(
    workspaces: Workspaces, config: WorkspaceConfig, made: str, provider: FakeProvider
) -> None:
    """Repeats request-1, which has made a workspace, until a repeat is not cancelled any more before it is over."""
    for turns in range(1000):
        repeat = asyncio.create_task(workspaces.create(OPERATOR, config, "request-1"))
        for _ in range(turns):
            await asyncio.sleep(0)
        repeat.cancel()
        await asyncio.wait([repeat])
        assert list(provider.guests) == [made], f"cancelled after {turns} turns"
        if not repeat.cancelled():
            return
    raise AssertionError("a repeat takes fewer turns")


async def test_repeat_that_is_cancelled_at_any_turn_of_the_loop_leaves_what_the_first_was_told_of() -> None:
    """As a proxy's second attempt is, which it cancels when the first one is answered."""
    provider = FakeProvider(serve_honestly)
    config = WorkspaceConfig(provider="fake")
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}) as workspaces:
        made = await workspaces.create(OPERATOR, config, "request-1")
        await cancel_at_each_turn(workspaces, config, made.id, provider)


async def test_repeat_that_is_cancelled_leaves_what_an_earlier_process_has_told_of() -> None:
    identity, provider = Identity.new(), FakeProvider(serve_honestly)
    config = WorkspaceConfig(provider="fake")
    async with asyncio.timeout(PATIENCE), SqliteRegistry.open(None) as registry:
        async with Workspaces({"fake": lambda: provider}, registry, identity, lasting=True) as workspaces:
            made = await workspaces.create(OPERATOR, config, "request-1")
        async with Workspaces({"fake": lambda: provider}, registry, identity, lasting=True) as workspaces:
            await cancel_at_each_turn(workspaces, config, made.id, provider)
            await workspaces.destroy(OPERATOR, made.id)


@pytest.mark.parametrize("comes", ["before", "after"])
async def test_repeat_gets_a_workspace_that_stays_whenever_the_first_is_cancelled(comes: str) -> None:
    """It comes before the workspace is made, or after, and the first is cancelled some turns of the loop later."""
    provider = FakeProvider(serve_honestly)
    config = WorkspaceConfig(provider="fake")
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}) as workspaces:
        for turns in range(20):

            def create() -> asyncio.Task[WorkspaceInfo]:
                return asyncio.create_task(workspaces.create(OPERATOR, config, f"request-{turns}"))  # noqa: B023

            creating = create()
            await asyncio.sleep(0)
            repeats = [create()] if comes == "before" else []
            await just_made(workspaces)
            for _ in range(turns // 4):
                await asyncio.sleep(0)
            [repeat] = repeats or [create()]
            for _ in range(turns % 4):
                await asyncio.sleep(0)
            creating.cancel()
            await asyncio.wait([creating])
            made = await repeat
            await let_tasks_run()
            assert list(provider.guests) == [made.id], f"cancelled after {turns} turns"
            await workspaces.destroy(OPERATOR, made.id)
