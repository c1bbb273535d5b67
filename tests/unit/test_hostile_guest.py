"""One workspace's guest turns hostile: that workspace is lost, and no other notices."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import pytest

from agentic_isolation import IsolationError, WorkspaceLostError, WorkspaceNotFoundError
from agentic_isolation.models import WorkspaceConfig, WorkspaceInfo, WorkspaceState
from agentic_isolation.runs import Command
from agentic_isolation_service.core import files
from agentic_isolation_service.core.caller import OPERATOR
from agentic_isolation_service.core.commands import Commands
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.guest.frames import MAX_DATA, WINDOW, FrameType, encode, encode_json
from tests.support.eventually import eventually
from tests.unit.fake_guest import INFO, PATIENCE, GuestEnd, Script, let_tasks_run, started
from tests.unit.fake_provider import FakeProvider, holding, serve_honestly

HOSTILE_ANSWERS = {
    "garbage": b"\xff" * 100_000,
    "malformed result": encode_json(FrameType.RESULT, 2, {"exit_code": "zero"}),
    "malformed start": encode_json(FrameType.EVENT, 2, {"event": "started"}),
    "no JSON": encode(FrameType.RESULT, 2, b"{"),
    "foreign channel": encode(FrameType.STDOUT, 77, b"x"),
    "data without credit": encode(FrameType.STDOUT, 2, bytes(MAX_DATA)) * (WINDOW // MAX_DATA + 10),
}


@contextlib.asynccontextmanager
async def hostile_and_honest(script: Script) -> AsyncIterator[tuple[Workspaces, WorkspaceInfo, WorkspaceInfo]]:
    """Makes a workspace with a guest of that script, and one with an honest guest, in one service."""
    providers = {"hostile": FakeProvider(script), "honest": FakeProvider(serve_honestly)}
    makers = {"hostile": lambda: providers["hostile"], "honest": lambda: providers["honest"]}
    async with asyncio.timeout(PATIENCE):
        async with holding(makers) as workspaces:
            hostile = await workspaces.create(OPERATOR, WorkspaceConfig(provider="hostile"))
            honest = await workspaces.create(OPERATOR, WorkspaceConfig(provider="honest"))
            yield workspaces, hostile, honest
        for provider in providers.values():
            assert not provider.guests, "a place was left"
            assert provider.closed


def hostile_after_its_creation(answer: bytes) -> Script:
    """Returns the script of a guest that is made properly and answers everything else with `answer`."""

    async def script(end: GuestEnd) -> None:
        while True:
            channel, operation = await end.operation()
            if operation["op"] == "info":
                await end.send_json(FrameType.RESULT, channel, INFO)
            elif operation["op"] == "claim":
                await end.send_json(FrameType.RESULT, channel, {})
            else:
                await end.send_bytes(answer)

    return script


async def _be_made(end: GuestEnd) -> None:
    for answer in (INFO, {}):
        channel, _ = await end.operation()
        await end.send_json(FrameType.RESULT, channel, answer)


async def echo(workspaces: Workspaces, workspace: WorkspaceInfo, text: str) -> str:
    outcome = await Commands(partial(workspaces.get, OPERATOR)).execute(
        workspace.id, Command(["echo", text]), output_limit=1000
    )
    return outcome.stdout.text()


@pytest.mark.parametrize("answer", HOSTILE_ANSWERS.values(), ids=list(HOSTILE_ANSWERS))
async def test_hostile_workspace_is_lost_and_can_be_destroyed_while_the_other_goes_on(answer: bytes) -> None:
    async with hostile_and_honest(hostile_after_its_creation(answer)) as (workspaces, hostile, honest):
        with pytest.raises(WorkspaceLostError):
            await echo(workspaces, hostile, "x")
        assert workspaces.get(OPERATOR, hostile.id).info.state is WorkspaceState.LOST
        assert workspaces.get(OPERATOR, honest.id).info.state is WorkspaceState.READY
        assert await echo(workspaces, honest, "hello") == "echo hello"

        for lost in (
            echo(workspaces, hostile, "x"),
            files.stat(workspaces.get(OPERATOR, hostile.id).session, "f"),
            workspaces.get(OPERATOR, hostile.id).renew(),
        ):
            with pytest.raises(WorkspaceLostError):
                await lost
        page, _ = workspaces.page(OPERATOR, {}, 10, "")
        assert {info.id: info.state for info in page} == {
            hostile.id: WorkspaceState.LOST,
            honest.id: WorkspaceState.READY,
        }

        await workspaces.destroy(OPERATOR, hostile.id)
        with pytest.raises(WorkspaceNotFoundError):
            workspaces.get(OPERATOR, hostile.id)
        assert await echo(workspaces, honest, "again") == "echo again"


async def test_flood_in_one_workspace_leaves_room_for_the_other() -> None:
    """A guest that sends without end and within its credit keeps nobody from being answered."""

    async def script(end: GuestEnd) -> None:
        await _be_made(end)
        channel, operation = await end.operation()
        pings = encode(FrameType.PING, 0, bytes(64)) * 1000
        await end.send_json(FrameType.EVENT, channel, started(operation))
        while True:
            await end.send_bytes(pings)

    async with hostile_and_honest(script) as (workspaces, hostile, honest):
        flooded = asyncio.create_task(echo(workspaces, hostile, "x"))
        for number in range(20):
            assert await echo(workspaces, honest, str(number)) == f"echo {number}"
        assert not flooded.done()
        await workspaces.destroy(OPERATOR, hostile.id)
        with pytest.raises(WorkspaceNotFoundError):
            await flooded


async def test_loss_is_noticed_without_any_call() -> None:
    async def script(end: GuestEnd) -> None:
        await _be_made(end)
        await end.send_bytes(b"\xff" * 8)

    async with hostile_and_honest(script) as (workspaces, hostile, honest):
        held = workspaces.get(OPERATOR, hostile.id)
        await eventually(lambda: held.info.state is WorkspaceState.LOST, "the workspace is LOST")
        assert await echo(workspaces, honest, "hello") == "echo hello"


@pytest.mark.parametrize(
    "answer", [b"\xff" * 8, encode_json(FrameType.RESULT, 1, {"uid": "root"})], ids=["garbage", "info"]
)
async def test_workspace_whose_guest_is_hostile_from_the_start_is_not_made(answer: bytes) -> None:
    async def script(end: GuestEnd) -> None:
        await end.operation()
        await end.send_bytes(answer)

    provider = FakeProvider(script)
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}) as workspaces:
        with pytest.raises(WorkspaceLostError):
            await workspaces.create(OPERATOR, WorkspaceConfig(provider="fake"))
        assert not provider.guests
        assert workspaces.page(OPERATOR, {}, 10, "") == ([], "")


async def test_creation_that_is_cancelled_while_the_guest_stalls_leaves_nothing() -> None:
    asked = asyncio.Event()

    async def script(end: GuestEnd) -> None:
        await end.operation()
        asked.set()

    provider = FakeProvider(script)
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}) as workspaces:
        creating = asyncio.create_task(workspaces.create(OPERATOR, WorkspaceConfig(provider="fake")))
        await asked.wait()
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert not provider.guests


async def test_calls_while_a_workspace_is_destroyed_open_no_new_link() -> None:
    """A client resumes at once when its stream breaks, which destroying the workspace does."""
    destroying, go_on = asyncio.Event(), asyncio.Event()

    class SlowProvider(FakeProvider):
        async def destroy(self, place: object, *, ending: bool = False) -> None:
            destroying.set()
            await go_on.wait()
            await super().destroy(place)  # type: ignore[arg-type]

    provider = SlowProvider(serve_honestly)
    async with asyncio.timeout(PATIENCE), holding({"fake": lambda: provider}) as workspaces:
        info = await workspaces.create(OPERATOR, WorkspaceConfig(provider="fake"))
        guest = provider.guests[info.id]
        removal = asyncio.create_task(workspaces.destroy(OPERATOR, info.id))
        await destroying.wait()
        with pytest.raises(IsolationError):
            await echo(workspaces, info, "late")
        await let_tasks_run()
        assert len(guest.streams) == 1
        go_on.set()
        await removal
