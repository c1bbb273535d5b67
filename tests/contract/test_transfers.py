"""Files and directories between this machine and a workspace: whole, verified, confined, and none half there."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
import stat
from pathlib import Path

import pytest

from agentic_isolation import (
    FileError,
    InvalidArgumentError,
    NoSpaceError,
    NotARegularFileError,
    PathEscapesError,
    ResourceLimits,
    TransferProgress,
    WorkspaceFileNotFoundError,
    WorkspaceNotADirectoryError,
)
from tests.support.ways import Way, Workspace

CONTENT = random.Random(5).randbytes(3_000_001)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A tree of this machine: of files, empty ones, directories, links, modes, and what is no file."""
    (tmp_path / "tree/sub/deeper").mkdir(parents=True)
    (tmp_path / "tree/empty").mkdir()
    (tmp_path / "tree/run.sh").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "tree/run.sh").chmod(0o755)
    (tmp_path / "tree/private").write_text("mine")
    (tmp_path / "tree/private").chmod(0o600)
    (tmp_path / "tree/nothing").touch()
    (tmp_path / "tree/sub/data.bin").write_bytes(CONTENT)
    (tmp_path / "tree/sub/deeper/ünï code \n.txt").write_text("text")
    (tmp_path / "tree/sub" / ("long" * 30)).write_text("long")
    (tmp_path / "tree/link").symlink_to("sub/data.bin")
    os.mkfifo(tmp_path / "tree/fifo")
    os.utime(tmp_path / "tree/private", (10**9, 10**9))
    return tmp_path


def described(root: Path) -> dict[str, tuple[str, int, bytes]]:
    """Returns all below a directory: by path, its kind, permission bits, and content or target."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", 0, os.readlink(path).encode())
        elif path.is_dir():
            found[name] = ("directory", 0, b"")
        elif stat.S_ISREG(status.st_mode):
            found[name] = ("file", stat.S_IMODE(status.st_mode), path.read_bytes())
    return found


async def test_directory_there_and_back_is_the_same(ws: Workspace, here: Path) -> None:
    told: list[TransferProgress] = []
    up = await ws.upload(here / "tree", "there", progress=told.append)
    assert (up.files, up.directories, up.symlinks, up.skipped) == (6, 3, 1, 1)
    assert told[-1].done_bytes == told[-1].total_bytes == up.content_bytes
    assert (await ws.execute("./there/run.sh")).stdout == "ran\n"
    assert (await ws.files.stat("there/private")).modified_at.timestamp() == 10**9
    await ws.execute("mkfifo there/pipe")
    down = await ws.download("there", here / "back")
    assert (down.files, down.directories, down.symlinks, down.skipped) == (6, 3, 1, 1)
    assert await asyncio.to_thread(described, here / "back") == await asyncio.to_thread(described, here / "tree")
    # Again, over what is there: files are replaced, the rest stays.
    await ws.write_file("there/more", "more")
    await ws.execute("rm there/link && echo changed > there/link")
    await ws.upload(here / "tree", "there")
    assert await ws.read_file("there/more") == b"more"
    assert (await ws.files.stat("there/link", follow=False)).symlink_target == "sub/data.bin"


async def test_patterns_leave_out_what_git_would(ws: Workspace, here: Path) -> None:
    patterns = ["*.bin", "deeper/", "/private", "!nothing", "sub/long*", "!sub/deeper/*.txt"]
    up = await ws.upload(here / "tree", "there", ignore=patterns)
    assert up.files == 2
    names = {file.path.removeprefix("/workspace/there/") for file in await ws.files.list("there", depth=9)}
    assert names == {"run.sh", "nothing", "empty", "sub", "link"}
    await ws.upload(here / "tree", "all")
    down = await ws.download("all", here / "back", ignore=patterns)
    assert down.files == 2
    assert set(described(here / "back")) == names
    for attempt in (ws.upload(here / "tree", ignore=["!"]), ws.download("all", here / "x", ignore=["!"])):
        with pytest.raises(InvalidArgumentError, match="ignore"):
            await attempt


async def test_a_pattern_is_not_taken_for_a_list_of_them(ws: Workspace, here: Path) -> None:
    """Each character of it would be one, and its star leave out everything."""
    for single in ("*.bin", "", b"*.bin"):
        for attempt in (
            ws.upload(here / "tree", ignore=single),  # type: ignore[arg-type]
            ws.download(".", here / "x", ignore=single),  # type: ignore[arg-type]
        ):
            with pytest.raises(InvalidArgumentError, match="list") as caught:
                await attempt
            assert caught.value.field == "ignore"
    with pytest.raises(InvalidArgumentError) as caught:
        await ws.upload(here / "tree", ignore=["*.bin", "\udcff"])
    assert caught.value.field == "ignore[1]"


async def test_single_file_there_and_back(ws: Workspace, here: Path) -> None:
    source = here / "tree/sub/data.bin"
    told: list[TransferProgress] = []
    assert (await ws.upload(source, "in/")).content_bytes == len(CONTENT)
    await ws.download("in/data.bin", here / "new/place.bin", progress=told.append)
    assert await asyncio.to_thread((here / "new/place.bin").read_bytes) == CONTENT
    assert (told[0].total_bytes, told[-1].done_bytes) == (len(CONTENT), len(CONTENT))
    await ws.upload(here / "tree/run.sh")
    assert (await ws.execute(["./run.sh"])).stdout == "ran\n"
    await ws.download("run.sh", here / "new")
    assert os.access(here / "new/run.sh", os.X_OK)
    assert sorted(os.listdir(here / "new")) == ["place.bin", "run.sh"]


async def test_what_is_not_there_or_leads_out_is_refused(ws: Workspace, here: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await ws.upload(here / "no such file")
    (here / "loop").symlink_to("loop")
    for looping in (here / "loop", here / "loop/below"):
        with pytest.raises(OSError, match="symbolic links") as caught:
            await ws.upload(looping)
        assert caught.value.errno == errno.ELOOP
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(here / "socket"))
    for special in (here / "tree/fifo", here / "socket", Path("/dev/zero")):
        with pytest.raises(NotARegularFileError):
            await ws.upload(special)
    with pytest.raises(WorkspaceFileNotFoundError):
        await ws.download("no such file", here / "back")
    await ws.write_file("file", "")
    with pytest.raises(WorkspaceNotADirectoryError):
        await ws.upload(here / "tree", "file/below")
    if ws.info.host_path:
        for attempt in (ws.upload(here / "tree", "../out"), ws.download("../..", here / "back")):
            with pytest.raises(PathEscapesError):
                await attempt
    assert not (here / "back").exists()
    assert not (await ws.execute("find . -name '*agentic*'")).stdout


async def test_file_that_shrinks_is_not_taken_for_a_whole_one(ws: Workspace, here: Path) -> None:
    source = here / "tree/sub/data.bin"
    with pytest.raises(FileError, match="became shorter"):
        await ws.upload(source, "in", progress=lambda _: os.truncate(source, 1_000_000))
    assert not await ws.file_exists("in")


async def test_what_is_no_file_here_is_not_replaced(ws: Workspace, here: Path) -> None:
    """As /dev/null would be, by whoever may and does not want the file."""
    await ws.write_file("there/fifo", "content")
    (here / "link").symlink_to("tree/fifo")
    for attempt in (
        ws.download("there/fifo", here / "tree/fifo"),
        ws.download("there/fifo", here / "link"),
        ws.download("there/fifo", here / "tree"),
        ws.download("there", here / "tree"),
    ):
        with pytest.raises(NotARegularFileError):
            await attempt
    assert (here / "link").is_fifo()


@pytest.mark.places("runc", "gvisor")
async def test_full_disk_leaves_no_half_file(way: Way, here: Path) -> None:
    async with way.open(way.config(limits=ResourceLimits(disk="4M"))) as ws:
        await asyncio.to_thread((here / "tree/zz").write_bytes, CONTENT)
        with pytest.raises(NoSpaceError):
            await ws.upload(here / "tree", "there")
        with pytest.raises(NoSpaceError):
            await ws.upload(here / "tree/zz", "alone")
        names = {file.name for file in await ws.files.list("there", depth=5)}
        assert "data.bin" in names
        assert "zz" not in names
        assert not await ws.file_exists("alone")
        assert not (await ws.execute("find . -name '*agentic*'")).stdout
