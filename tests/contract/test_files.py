"""Files: what goes in comes out, whole, under its name and with its mode; what cannot be done is told apart."""

from __future__ import annotations

import asyncio
import hashlib
import os
from array import array
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from agentic_isolation import (
    DirectoryNotEmptyError,
    FileError,
    FileType,
    InvalidArgumentError,
    NotARegularFileError,
    WorkspaceFileExistsError,
    WorkspaceFileNotFoundError,
    WorkspaceIsADirectoryError,
    WorkspaceNotADirectoryError,
)
from tests.support.eventually import eventually
from tests.support.jobs import python
from tests.support.memory import stays_flat
from tests.support.ways import Way, Workspace

NAMES = [
    "plain",
    "with space",
    " leading and trailing ",
    "line\nbreak",
    "tab\there",
    "-dash",
    "~",
    "*",
    "...",
    "back\\slash",
    "quo'te\"s",
    "$HOME",
    "grüße",
    "世界",
    "🎉" * 60,
    "e\u0301",  # decomposed: names are bytes, nobody normalises them
    "x" * 255,
    ".hidden",
]


async def test_names(ws: Workspace) -> None:
    for name in NAMES:
        info = await ws.write_file(f"some dir/{name}", name)
        assert (info.name, info.path) == (name, f"/workspace/some dir/{name}")
        assert await ws.read_file(f"some dir/{name}") == name.encode()
        assert (await ws.execute(["cat", "--", f"/proc/self/cwd/some dir/{name}"])).stdout == name
    assert [file.name for file in await ws.files.list("some dir")] == sorted(NAMES, key=str.encode)
    for name in NAMES:
        await ws.files.remove(f"some dir/{name}")
    assert await ws.files.list("some dir") == []


CONTENTS = [b"", b"x", b"\0", bytes(range(256)) * 300, b"\xff\xfe\xfd", b"\r\n\n\r", bytes(65536), bytes(262_145)]


async def test_content_comes_back_as_it_went_in(ws: Workspace) -> None:
    for content in CONTENTS:
        info = await ws.write_file("file", content)
        assert info.size_bytes == len(content)
        assert await ws.read_file("file") == content
        result = await ws.execute("cat file", output_limit=1 << 20)
        assert result.output[0].head == content


async def test_text_is_written_as_utf8(ws: Workspace) -> None:
    await ws.write_file("file", "grüße\n")
    assert await ws.read_file("file") == b"gr\xc3\xbc\xc3\x9fe\n"


async def test_content_of_other_types(ws: Workspace) -> None:
    for content in (bytearray(b"\0ab"), memoryview(b"\0-a-b")[::2], memoryview(array("H", [1, 2]))):
        await ws.write_file("file", content)
        assert await ws.read_file("file") == bytes(content)
    for refused in (None, 5, ["a"], "a\udcff"):
        with pytest.raises(InvalidArgumentError) as caught:
            await ws.write_file("file", refused)  # type: ignore[arg-type]
        assert caught.value.field == "content", f"{refused!r}"


async def test_hundred_megabytes(way: Way, ws: Workspace) -> None:
    """More than any window or message; only the caller ever holds all of it."""
    content = os.urandom(1 << 20) * 100
    allowance = 3 * len(content) if way.service_pid == os.getpid() else 64 << 20
    with stays_flat(way.service_pid, within=allowance), stays_flat(*way.guest_pids()):
        info = await ws.write_file("large", content)
        assert info.size_bytes == len(content)
        back = await ws.read_file("large")
    assert hashlib.sha256(back).digest() == hashlib.sha256(content).digest()
    assert (await ws.execute("wc -c < large")).stdout.strip() == str(len(content))


async def test_parents_are_made(ws: Workspace) -> None:
    await ws.write_file("a/b/c/file", "deep")
    assert await ws.read_file("/workspace/a/b/c/file") == b"deep"
    assert [file.name for file in await ws.files.list("a/b")] == ["c"]


async def test_paths_to_the_same_file(ws: Workspace) -> None:
    await ws.files.make_directory("a")
    await ws.write_file("file", "same")
    for path in ("file", "./file", "/workspace/file", "a/../file", "a//.././/file", "/workspace/./file"):
        assert await ws.read_file(path) == b"same"
        assert (await ws.files.stat(path)).path == "/workspace/file"


async def test_mode_of_a_new_and_of_a_replaced_file(ws: Workspace) -> None:
    assert (await ws.write_file("script", "#!/bin/sh\necho one", mode=0o750)).mode == 0o750
    assert (await ws.execute(["./script"])).stdout == "one\n"
    assert (await ws.write_file("script", "#!/bin/sh\necho two")).mode == 0o750, "a replaced file keeps its mode"
    assert (await ws.execute(["./script"])).stdout == "two\n"
    assert (await ws.write_file("script", "", mode=0o600)).mode == 0o600
    assert (await ws.write_file("plain", "")).mode == 0o644


async def test_mode_out_of_range_is_refused(ws: Workspace) -> None:
    for mode in (-1, 0o1000, 0o4755, 0o10000):
        with pytest.raises(InvalidArgumentError) as caught:
            await ws.write_file("file", "", mode=mode)
        assert caught.value.field == "mode"
    assert not await ws.file_exists("file")


# Replaces a file as fast as it can, by content that is whole only when all of it is one letter.
READER = """
import sys, time
seen, end = set(), time.monotonic() + 30
while len(seen) < 20 and time.monotonic() < end:
    with open("shared", "rb") as file:
        content = file.read()
    assert len(content) == 300_000 and len(set(content)) == 1, (len(content), set(content))
    seen.add(content[:1])
print(len(seen))
"""


async def test_readers_see_the_old_file_or_the_new_one(ws: Workspace) -> None:
    await ws.write_file("shared", b"a" * 300_000)
    reading = asyncio.create_task(ws.execute(python(READER)))
    number = 0
    while not reading.done():
        number += 1
        await ws.write_file("shared", bytes([ord("a") + number % 26]) * 300_000)
    result = await reading
    assert (result.stderr, result.stdout) == ("", "20\n")
    assert [file.name for file in await ws.files.list()] == ["shared"], "no temporary file is left"


async def test_writing_that_is_cancelled_leaves_the_old_file_or_the_new_one(ws: Workspace) -> None:
    sizes = set()
    for steps in range(0, 90, 3):
        await ws.write_file("file", "old")
        writing = asyncio.create_task(ws.write_file("file", bytes(4 << 20)))
        for _ in range(steps):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        sizes.add((await ws.files.stat("file")).size_bytes)
    assert sizes <= {3, 4 << 20}

    async def only_the_file_is_there() -> bool:
        return [file.name for file in await ws.files.list()] == ["file"]

    await eventually(only_the_file_is_there, "temporary files are gone")


async def test_missing_file(ws: Workspace) -> None:
    for attempt in (ws.read_file, ws.files.stat, ws.files.remove, ws.files.list):
        with pytest.raises(WorkspaceFileNotFoundError, match="nowhere"):
            await attempt("nowhere/at all")
        with pytest.raises(FileNotFoundError):
            await attempt("nowhere")
    assert not await ws.file_exists("nowhere")
    assert not await ws.file_exists("nowhere/at all")


async def test_file_where_a_directory_should_be(ws: Workspace) -> None:
    await ws.write_file("file", "")
    with pytest.raises(NotADirectoryError):
        await ws.read_file("file/below")
    with pytest.raises(WorkspaceNotADirectoryError):
        await ws.write_file("file/below", "")
    with pytest.raises(WorkspaceNotADirectoryError):
        await ws.files.list("file")
    with pytest.raises((WorkspaceNotADirectoryError, WorkspaceFileExistsError)):
        await ws.files.make_directory("file/below")
    assert not await ws.file_exists("file/below")


async def test_directory_where_a_file_should_be(ws: Workspace) -> None:
    await ws.files.make_directory("folder")
    with pytest.raises(WorkspaceIsADirectoryError):
        await ws.read_file("folder")
    with pytest.raises(WorkspaceIsADirectoryError):
        await ws.write_file("folder", "")
    assert await ws.file_exists("folder")


async def test_refused_upload_says_why_however_much_of_it_was_under_way(ws: Workspace) -> None:
    await ws.files.make_directory("folder")
    for size in (0, 1 << 20, 8 << 20):
        for _ in range(15):
            with pytest.raises(WorkspaceIsADirectoryError):
                await ws.write_file("folder", bytes(size))


async def test_what_is_no_regular_file_is_not_read(ws: Workspace) -> None:
    """A pipe that nobody writes to would block for ever."""
    await ws.execute("mkfifo pipe; ln -s /dev/zero zero")
    with pytest.raises(NotARegularFileError):
        await ws.read_file("pipe")
    assert (await ws.files.stat("pipe")).type is FileType.OTHER
    await ws.files.remove("pipe")
    assert not await ws.file_exists("pipe")


async def test_stat(ws: Workspace) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    await ws.write_file("file", "12345", mode=0o640)
    await ws.files.make_directory("folder")
    file, folder = await ws.files.stat("file"), await ws.files.stat("folder")
    assert (file.path, file.name, file.type, file.size_bytes, file.mode) == (
        "/workspace/file",
        "file",
        FileType.FILE,
        5,
        0o640,
    )
    assert (folder.path, folder.name, folder.type) == ("/workspace/folder", "folder", FileType.DIRECTORY)
    assert before < file.modified_at < datetime.now(UTC) + timedelta(seconds=5)
    assert (await ws.files.stat(".")).path == "/workspace"
    assert (await ws.files.stat("/workspace")).type is FileType.DIRECTORY


async def test_symlinks_within_the_workspace(ws: Workspace) -> None:
    await ws.execute("echo content > file; mkdir folder; ln -s file link; ln -s ../file folder/up; ln -s lost dangling")
    assert await ws.read_file("link") == b"content\n"
    assert await ws.read_file("folder/up") == b"content\n"
    assert (await ws.files.stat("link")).type is FileType.FILE
    assert not await ws.file_exists("dangling")
    by_name = {file.name: file for file in await ws.files.list()}
    assert (by_name["link"].type, by_name["link"].symlink_target) == (FileType.SYMLINK, "file")
    assert (by_name["dangling"].type, by_name["dangling"].symlink_target) == (FileType.SYMLINK, "lost")
    await ws.files.remove("link")
    assert await ws.read_file("file") == b"content\n", "removing a link leaves what it points to"


async def test_make_directory(ws: Workspace) -> None:
    info = await ws.files.make_directory("a/b/c")
    assert (info.path, info.type, info.mode) == ("/workspace/a/b/c", FileType.DIRECTORY, 0o755)
    await ws.files.make_directory("a/b/c")
    with pytest.raises(WorkspaceFileExistsError):
        await ws.files.make_directory("a", parents=False)
    with pytest.raises(WorkspaceFileNotFoundError):
        await ws.files.make_directory("x/y", parents=False)
    await ws.files.make_directory("x", parents=False)
    assert [file.name for file in await ws.files.list()] == ["a", "x"]


async def test_list_directory_is_sorted_by_bytes_and_complete(ws: Workspace) -> None:
    """More than a page of 1,000."""
    await ws.execute("mkdir many; cd many; seq 1200 | xargs touch; touch B a 'ä' .hidden")
    names = [file.name for file in await ws.files.list("many")]
    assert len(names) == 1204
    assert names == sorted(names, key=str.encode)


async def test_list_directory_tells_what_entries_are(ws: Workspace) -> None:
    assert await ws.files.list() == []
    await ws.execute("mkdir folder; echo hi > file; ln -s file link; mkfifo pipe")
    entries = {file.name: file for file in await ws.files.list("/workspace")}
    assert {name: file.type for name, file in entries.items()} == {
        "file": FileType.FILE,
        "folder": FileType.DIRECTORY,
        "link": FileType.SYMLINK,
        "pipe": FileType.OTHER,
    }
    assert entries["file"].size_bytes == 3
    assert entries["file"].path == "/workspace/file"


async def test_remove(ws: Workspace) -> None:
    await ws.write_file("folder/sub/file", "")
    await ws.execute("mkdir empty; ln -s folder link")
    with pytest.raises(DirectoryNotEmptyError):
        await ws.files.remove("folder")
    await ws.files.remove("empty")
    await ws.files.remove("link", recursive=True)
    assert await ws.file_exists("folder/sub/file"), "a link is removed, not what it points to"
    await ws.files.remove("folder", recursive=True)
    assert await ws.files.list() == []


async def test_remove_takes_directories_that_are_locked_by_their_mode(ws: Workspace) -> None:
    await ws.execute("mkdir -p locked/inner; touch locked/inner/file; chmod 000 locked/inner locked")
    await ws.files.remove("locked", recursive=True)
    assert await ws.files.list() == []


async def test_the_working_directory_is_not_removed(ws: Workspace) -> None:
    await ws.write_file("a/file", "kept")
    for path in (".", "/workspace", "/workspace/", "a/.."):
        with pytest.raises((InvalidArgumentError, FileError)):
            await ws.files.remove(path, recursive=True)
    assert await ws.read_file("a/file") == b"kept"


async def test_paths_that_make_no_sense_are_refused_by_their_field(ws: Workspace) -> None:
    for path in ("", "a\0b", "x" * 5000, "\udcff"):
        for attempt in (
            ws.read_file,
            ws.files.stat,
            ws.files.remove,
            ws.files.make_directory,
            partial(write_nothing, ws),
        ):
            with pytest.raises(InvalidArgumentError) as caught:
                await attempt(path)
            assert caught.value.field == "path", f"{path!r:.100}"


async def write_nothing(ws: Workspace, path: str) -> None:
    await ws.write_file(path, "")
