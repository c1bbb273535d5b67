"""Watching a directory: what happens in it is told, in order, from when the watch is in place."""

from __future__ import annotations

import asyncio

import pytest

from agentic_isolation import (
    FileChange,
    FileChangeType,
    FileWatch,
    WorkspaceFileNotFoundError,
    WorkspaceNotADirectoryError,
)
from tests.support.ways import Workspace

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


async def test_what_cannot_be_watched_is_refused(ws: Workspace) -> None:
    await ws.write_file("file", "")
    for path, error in (("nowhere", WorkspaceFileNotFoundError), ("file", WorkspaceNotADirectoryError)):
        with pytest.raises(error):
            await ws.files.watch(path).__aenter__()
