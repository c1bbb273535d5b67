"""Event loops: one after the other, beside each other, none. What is open belongs to the one it was opened on."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from agentic_isolation import (
    AgenticWorkspace,
    FileChange,
    ServiceClient,
    WorkspaceConfig,
    WorkspaceLocalProvider,
    __version__,
)
from tests.support.service import ServedProcess
from tests.support.ways import Way


def test_successive_event_loops() -> None:
    async def use() -> str:
        async with AgenticWorkspace.create("local", target="") as ws:
            return (await ws.execute("echo hi")).stdout

    assert [asyncio.run(use()) for _ in range(3)] == ["hi\n"] * 3


def test_event_loops_that_are_over_are_forgotten() -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def use() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        first, second = AgenticWorkspace.create("local", target=""), AgenticWorkspace.create("local", target="")
        await asyncio.gather(first, second)  # one of them waits for the service to be open
        await asyncio.gather(first.close(), second.close())

    asyncio.run(use())
    asyncio.run(use())
    gc.collect()
    assert [loop() for loop in loops] == [None, None]


def test_client_that_is_older_than_its_event_loop(service: ServedProcess) -> None:
    client = ServiceClient(service.target)

    async def ask() -> str:
        async with client:
            return (await client.info()).version

    assert asyncio.run(ask()) == __version__


@pytest.mark.parametrize("road", ["direct", "embedded", "served"])
async def test_use_on_another_event_loop_does_nothing(service: ServedProcess, road: str) -> None:
    async with Way.of(f"local-{road}", target=service.target).open() as ws:
        uses: dict[str, Callable[[], Awaitable[object]]] = {
            "execute": lambda: ws.execute("touch executed"),
            "stream": lambda: anext(ws.stream("touch streamed")),
            "start": lambda: ws.start("touch started"),
            "write": lambda: ws.write_file("written", ""),
            "close": ws.close,
        }
        for use in uses.values():
            with pytest.raises(RuntimeError, match="event loop"):
                await asyncio.to_thread(asyncio.run, _awaited(use))
        assert await ws.files.list() == []
        assert (await ws.execute("echo unharmed")).stdout == "unharmed\n"
    assert not await asyncio.to_thread(Path(ws.info.host_path).exists)


@pytest.mark.parametrize("road", ["direct", "embedded", "served"])
async def test_what_is_open_is_unharmed_by_use_on_another_event_loop(service: ServedProcess, road: str) -> None:
    async with Way.of(f"local-{road}", target=service.target).open() as ws:
        async with (
            await ws.start("cat") as process,
            ws.stream("echo one; until [ -e go ]; do sleep 0.01; done; echo two") as stream,
            ws.files.watch(".") as changes,
        ):
            assert await anext(stream) == "one"
            uses: Sequence[Callable[[], Awaitable[object]]] = [
                process.__anext__,
                process.wait,
                lambda: process.write("never written"),
                process.send_eof,
                lambda: process.resize(80, 24),
                process.kill,
                process.detach,
                process.aclose,
                stream.__anext__,
                stream.aclose,
                changes.__anext__,
                changes.aclose,
            ]
            for use in uses:
                with pytest.raises(RuntimeError, match="event loop"):
                    await asyncio.to_thread(asyncio.run, _awaited(use))
            await process.write("written\n")
            assert await anext(process.lines()) == "written"
            await ws.write_file("go", "")
            change = await anext(changes)
            assert isinstance(change, FileChange)
            assert change.path == "/workspace/go"
            assert await anext(stream) == "two"
        assert [process.running for process in await ws.processes()] == [False, False]


async def test_provider_on_another_event_loop_than_its_workspaces() -> None:
    provider, config = WorkspaceLocalProvider(), WorkspaceConfig(provider="local")

    async def use() -> None:
        await provider.destroy(await provider.create(config))

    workspace = await provider.create(config)
    with pytest.raises(RuntimeError, match="event loop"):
        await asyncio.to_thread(asyncio.run, use())
    await provider.destroy(workspace)
    await asyncio.to_thread(asyncio.run, use())


async def _awaited(use: Callable[[], Awaitable[object]]) -> None:
    await use()


def test_use_without_asyncio() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        AgenticWorkspace.create("local", target="").__await__().send(None)
