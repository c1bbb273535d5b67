"""Watching a directory: what happens in it is told, in order, from when the watch is in place."""

from __future__ import annotations

import asyncio

import pytest

from agentic_isolation import (
    FileChange,
    FileChangeType,
    FileWatch,
    WatchOverflow,
    WorkspaceFileNotFoundError,
    WorkspaceNotADirectoryError,
)
from tests.support.jobs import python
from tests.support.memory import stays_flat
from tests.support.ways import Way, Workspace

CREATED, MODIFIED, REMOVED = FileChangeType.CREATED, FileChangeType.MODIFIED, FileChangeType.REMOVED


async def changes_until(watch: FileWatch, name: str) -> list[tuple[FileChangeType, str, str]]:
    """Returns what is told until a file of a name is created: kind, path and former path, relative to `w`."""
    found = []
    async with asyncio.timeout(20):
        async for change in watch:
            assert isinstance(change, FileChange)
            path, former = (text.removeprefix("/workspace/w/") for text in (change.path, change.from_path))
            if path == name:
                break
            found.append((change.type, path, former))
    return found


async def test_changes_are_told_in_a_tree_that_grows(ws: Workspace) -> None:
    await ws.execute("mkdir -p w/old && echo 1 > w/old/file")
    async with ws.files.watch("w") as watch:
        await ws.execute("echo 2 >> w/old/file; mkdir -p w/new/deep; echo 3 > w/new/deep/file; touch w/done-1")
        told = await changes_until(watch, "done-1")
        assert told[0] == (MODIFIED, "old/file", "")
        assert [path for kind, path, _ in told if kind is CREATED] == ["new", "new/deep", "new/deep/file"]
        await ws.execute("mv w/new w/moved; echo 4 >> w/moved/deep/file; rm w/old/file; touch w/done-2")
        told = await changes_until(watch, "done-2")
        assert (FileChangeType.MOVED, "moved", "new") in told
        assert (MODIFIED, "moved/deep/file", "") in told
        assert (REMOVED, "old/file", "") in told


async def test_watching_one_level_and_its_end(ws: Workspace) -> None:
    await ws.execute("mkdir -p w/below")
    async with ws.files.watch("w", recursive=False) as watch:
        await ws.execute("echo 1 > w/below/file; chmod 700 w/below; touch w/done")
        told = await changes_until(watch, "done")
        assert told == [(FileChangeType.ATTRIBUTES, "below", "")]
        await ws.execute("rm -r w")
        last = [change async for change in watch][-1]
        assert isinstance(last, FileChange)
        assert (last.type, last.path, last.is_directory) == (REMOVED, "/workspace/w", True)


async def test_a_wait_that_is_given_up_is_taken_up_by_the_next_one(ws: Workspace) -> None:
    await ws.execute("mkdir w")
    async with ws.files.watch("w") as watch:
        for number in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.05)
            await ws.execute(f"mkdir w/{number}")
            assert await changes_until(watch, str(number)) == []
        waiting = asyncio.create_task(anext(watch, None))
        await asyncio.sleep(0)
        await watch.aclose()
        assert await waiting is None


async def test_what_cannot_be_watched_is_refused(ws: Workspace) -> None:
    await ws.write_file("file", "")
    for path, error in (("nowhere", WorkspaceFileNotFoundError), ("file", WorkspaceNotADirectoryError)):
        with pytest.raises(error):
            await ws.files.watch(path).__aenter__()


BUSY = """
import os
for number in range(30_000):
    os.rename("w/a", "w/b")
    os.rename("w/b", "w/a")
open("w/last", "w").close()
"""


@pytest.mark.places("local", "runc")
async def test_slow_reader_is_told_that_it_has_missed_changes(way: Way, ws: Workspace) -> None:
    """What waits for it is bounded everywhere, and what happens after that is told again."""
    await ws.execute("mkdir w; touch w/a")
    async with ws.files.watch("w") as watch:
        with stays_flat(way.service_pid, within=32 << 20), stays_flat(*way.guest_pids(), within=32 << 20):
            await ws.execute(python(BUSY))
        async with asyncio.timeout(30):
            overflows = 0
            while overflows == 0:
                overflows += await anext(watch) == WatchOverflow()
            await ws.write_file("w/after", "")
            async for change in watch:
                if isinstance(change, FileChange) and change.path == "/workspace/w/after":
                    break
