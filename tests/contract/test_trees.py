"""Trees of files: listed to any depth, copied, moved, and their modes set, within the workspace only."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_isolation import (
    FileType,
    InvalidArgumentError,
    NotARegularFileError,
    PathEscapesError,
    WorkspaceFileExistsError,
    WorkspaceFileNotFoundError,
    WorkspaceIsADirectoryError,
)
from tests.support.ways import Workspace

TREE = "mkdir -p t/a/b t/z; echo 1 > t/a/b/file; echo 2 > t/a.x; ln -s a t/link; chmod 750 t/a/b/file"


async def listed(ws: Workspace, path: str, depth: int = 1000) -> list[str]:
    top = (await ws.files.stat(path)).path + "/"
    return [file.path.removeprefix(top) for file in await ws.files.list(path, depth=depth)]


async def test_listing_to_a_depth(ws: Workspace) -> None:
    await ws.execute(TREE)
    assert await listed(ws, "t", 1) == ["a", "a.x", "link", "z"]
    assert await listed(ws, "t", 2) == ["a", "a/b", "a.x", "link", "z"]
    assert await listed(ws, "t") == ["a", "a/b", "a/b/file", "a.x", "link", "z"]
    for depth in (1001, 0, -1):
        with pytest.raises(InvalidArgumentError) as caught:
            await ws.files.list("t", depth=depth)
        assert caught.value.field == "depth"
    # More than a page, and the last entry of the first page lies deep.
    await ws.execute("for n in $(seq 40); do mkdir -p many/$n/d && (cd many/$n/d && seq 30 | xargs touch); done")
    paths = await listed(ws, "many")
    assert len(paths) == len(set(paths)) == 40 * 32
    assert paths == sorted(paths, key=lambda path: path.encode().split(b"/"))


async def test_copies(ws: Workspace) -> None:
    await ws.execute(TREE)
    with pytest.raises(WorkspaceFileNotFoundError):
        await ws.files.copy("t/a.x", "new/place")
    await ws.files.make_directory("new")
    file = await ws.files.copy("t/a/b/file", "new/place")
    assert (file.path, file.mode, await ws.read_file("new/place")) == ("/workspace/new/place", 0o750, b"1\n")
    with pytest.raises(WorkspaceFileExistsError):
        await ws.files.copy("t/a.x", "new/place")
    assert await ws.read_file("new/place") == b"1\n"
    await ws.files.copy("t/a.x", "new/place", overwrite=True)
    assert await ws.read_file("new/place") == b"2\n"
    assert (await ws.files.copy("t/link", "link")).type is FileType.SYMLINK
    with pytest.raises(WorkspaceIsADirectoryError):
        await ws.files.copy("t", "u")
    await ws.files.copy("t", "u", recursive=True)
    assert await listed(ws, "u") == await listed(ws, "t")
    with pytest.raises(WorkspaceFileExistsError):
        await ws.files.copy("t", "u", recursive=True, overwrite=True)
    await ws.execute("mkfifo t/z/pipe")
    with pytest.raises(NotARegularFileError):
        await ws.files.copy("t", "v", recursive=True)
    assert not await ws.file_exists("v"), "a copy is there as a whole or not at all"
    with pytest.raises(WorkspaceFileNotFoundError):
        await ws.files.copy("nowhere", "v")


async def test_moves(ws: Workspace) -> None:
    await ws.execute(TREE)
    assert (await ws.files.move("t/a", "t/c")).path == "/workspace/t/c"
    assert await ws.read_file("t/c/b/file") == b"1\n"
    with pytest.raises(WorkspaceFileExistsError):
        await ws.files.move("t/c/b/file", "t/a.x")
    await ws.files.move("t/c/b/file", "t/a.x", overwrite=True)
    assert await ws.read_file("t/a.x") == b"1\n"
    with pytest.raises(WorkspaceFileNotFoundError):
        await ws.files.move("nowhere", "v")


async def test_modes(ws: Workspace) -> None:
    await ws.execute(TREE)
    assert (await ws.files.chmod("t/a.x", 0o600)).mode == 0o600
    assert (await ws.execute("stat -c %a t/a.x")).stdout == "600\n"
    assert (await ws.files.chmod("t/link", 0o700)).path.endswith(("t/link", "t/a"))
    assert (await ws.files.stat("t/a")).mode == 0o700, "a symlink stands for what it points to"
    for mode in (0o1000, 0o4755, -1):
        with pytest.raises(InvalidArgumentError) as caught:
            await ws.files.chmod("t/a.x", mode)
        assert caught.value.field == "mode"


@pytest.mark.places("local")
async def test_nothing_leads_out(ws: Workspace, directory: Path) -> None:
    """By name, and by a symlink of the workload's; whichever of two paths it is, is told."""
    await ws.execute(TREE + "; ln -s /etc door; ln -s .. up")
    for path in ("../x", "/etc/passwd", "door/passwd", "up/x"):
        for field, attempt in (
            ("source_path", ws.files.copy(path, "new", recursive=True)),
            ("destination_path", ws.files.copy("t/a.x", path, overwrite=True)),
            ("source_path", ws.files.move(path, "new")),
            ("destination_path", ws.files.move("t/a.x", path, overwrite=True)),
            ("path", ws.files.chmod(path, 0o777)),
            ("path", ws.files.watch(path).__aenter__()),
            ("path", ws.upload(directory, path)),
            ("path", ws.download(path, "never")),
        ):
            with pytest.raises(PathEscapesError) as caught:
                await attempt
            assert caught.value.field == field
    assert (await ws.files.copy("door", "copied")).symlink_target == "/etc"
    with pytest.raises(PathEscapesError):
        await ws.files.list("door", depth=3)
    assert await ws.files.list("t/z") == []
