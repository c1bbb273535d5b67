"""Ways out of a workspace's files, each of which must fail, whatever the workload does meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from pathlib import Path

import pytest

from agentic_isolation import (
    FileError,
    InvalidArgumentError,
    IsolationError,
    PathEscapesError,
    WorkspaceIsADirectoryError,
)
from tests.support.eventually import eventually
from tests.support.jobs import new_mark, python
from tests.support.ways import Way, Workspace

SECRET = "secret of the other workspace"

# A container's paths cannot name what is outside of it: there it is the place that confines, not the guest.
in_a_directory_of_this_machine = pytest.mark.places("local")

OUTSIDE = [
    "..",
    "../x",
    "../../etc/passwd",
    "a/../../x",
    "/",
    "/etc/passwd",
    "/workspace/../etc/passwd",
    "/workspacefoo",
    "/../etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "/proc/1/root/etc/passwd",
    "/dev/shm/x",
]


@in_a_directory_of_this_machine
async def test_paths_that_lead_out_are_refused(ws: Workspace) -> None:
    await ws.files.make_directory("a")
    for path in OUTSIDE:
        for look in (ws.read_file, ws.files.stat, ws.files.list, ws.file_exists):
            with pytest.raises(PathEscapesError):
                await look(path)
        with pytest.raises((InvalidArgumentError, WorkspaceIsADirectoryError)):
            await ws.write_file(path, "x")
        with pytest.raises(InvalidArgumentError):
            await ws.files.make_directory(path)
        with pytest.raises(InvalidArgumentError):
            await ws.files.remove(path, recursive=True)


@in_a_directory_of_this_machine
async def test_path_that_is_refused_leaves_no_parents_behind(ws: Workspace) -> None:
    for path in ("a/../../x", "b/c/../../../x"):
        with pytest.raises((PathEscapesError, FileNotFoundError)):
            await ws.write_file(path, "x")
        with pytest.raises((PathEscapesError, FileNotFoundError)):
            await ws.files.make_directory(path)
    assert await ws.files.list() == []


@in_a_directory_of_this_machine
async def test_refusal_names_the_path_that_was_asked_for(ws: Workspace) -> None:
    for path in ("..", "../../etc/passwd", "/etc/passwd"):
        with pytest.raises(PathEscapesError, match=re.escape(path)):
            await ws.files.stat(path)


@in_a_directory_of_this_machine
@pytest.mark.parametrize("target", ["/etc", "../..", "/proc/self/root/etc", "loop/.."], ids=ascii)
async def test_symlinks_that_lead_out_are_refused(ws: Workspace, target: str) -> None:
    await ws.execute(["sh", "-c", 'ln -s /etc loop; ln -s "$0" link; mkdir dir; ln -s "../link" dir/link', target])
    for path in ("link/passwd", "dir/link/passwd"):
        for attempt in (ws.read_file, ws.files.stat, ws.files.remove, lambda path: ws.write_file(path, "x")):
            with pytest.raises((PathEscapesError, FileNotFoundError)):
                await attempt(path)
    with pytest.raises(PathEscapesError):
        await ws.files.list("link")


@in_a_directory_of_this_machine
async def test_symlink_to_a_file_outside_is_neither_read_nor_written_through(ws: Workspace) -> None:
    """Writing replaces a link by a file, or is refused; it never writes where the link points to."""
    await ws.execute("ln -s /etc/passwd link; ln -s ../escaped new")
    with pytest.raises(PathEscapesError):
        await ws.read_file("link")
    for path in ("link", "new"):
        with contextlib.suppress(PathEscapesError):
            await ws.write_file(path, "overwritten")
    assert "overwritten" not in (await ws.execute("cat /etc/passwd")).stdout
    assert (await ws.execute("test -e ../escaped")).exit_code == 1


async def test_symlinks_in_a_circle(ws: Workspace) -> None:
    await ws.execute("ln -s b a; ln -s a b; ln -s . self")
    with pytest.raises((FileError, InvalidArgumentError)):
        await ws.read_file("a")
    await ws.write_file("file", "found")
    assert await ws.read_file("self/" * 8 + "file") == b"found"
    with pytest.raises((FileError, InvalidArgumentError)):
        await ws.read_file("self/" * 500 + "file")


# Swaps a directory for a link to the outside and back, as fast as it can; the name is never free.
SWAPPER = """
import ctypes, os, sys
RENAME_EXCHANGE, HERE = 2, -100
os.makedirs("door")
open("door/file", "w").write("inside")
os.symlink(sys.argv[1], "link")
open("ready", "w").close()
while ctypes.CDLL(None).renameat2(HERE, b"door", HERE, b"link", RENAME_EXCHANGE) == 0:
    pass
"""


@in_a_directory_of_this_machine
async def test_symlink_races_are_lost(way: Way, ws: Workspace) -> None:
    """While the workload swaps a directory for a link out, nothing outside is read, written, listed or removed."""
    async with way.open() as victim:
        await victim.write_file("file", SECRET)
        outside = (await victim.execute("pwd")).stdout.strip()
        swapping = asyncio.create_task(ws.execute(python(SWAPPER, outside, new_mark())))
        tally: Counter[str] = Counter()
        try:
            await eventually(lambda: ws.file_exists("ready"), "the workload swaps")
            async with asyncio.timeout(60):
                # Both sides of the door have to be met, many times.
                while min(tally["inside"], tally["refused"]) < 50:
                    await attempt_all(ws, tally)
                    assert not swapping.done(), swapping.result()
        finally:
            swapping.cancel()
            await asyncio.gather(swapping, return_exceptions=True)
        assert await victim.read_file("file") == SECRET.encode()
        assert [file.name for file in await victim.files.list()] == ["file"]


async def attempt_all(ws: Workspace, tally: Counter[str]) -> None:
    """Tries everything through the door, and counts which side of it was met."""

    async def read() -> None:
        assert await ws.read_file("door/file") in {b"inside", b"written"}

    async def names() -> None:
        assert {file.name for file in await ws.files.list("door")} <= {"file", "new"}

    async def write() -> None:
        await ws.write_file("door/file", "written")
        await ws.write_file("door/new", "")

    async def remove() -> None:
        await ws.files.remove("door/new")

    for attempt in (read, names, write, remove):
        try:
            await attempt()
            tally["inside"] += 1
        except PathEscapesError:
            tally["refused"] += 1
        except IsolationError:
            tally["confused"] += 1


async def test_no_path_leads_to_a_file_of_this_machine(ws: Workspace, directory: Path) -> None:
    """Nor do a symlink, the root of another process, or a link that is swapped in later."""
    host_file = directory / "secret"
    host_file.write_text(SECRET)
    await ws.execute(["ln", "-s", str(host_file), "link"])
    await ws.execute(["ln", "-s", str(directory), "door"])
    roots = ("", "/proc/1/root", "/proc/self/root", "../" * 8)
    for path in ["link", "door/secret", *(f"{root}{host_file}" for root in roots)]:
        with pytest.raises(IsolationError):
            await ws.read_file(path)
        with contextlib.suppress(IsolationError):
            await ws.write_file(path, "overwritten")
        with contextlib.suppress(IsolationError):
            await ws.files.remove(path)
    assert host_file.read_text() == SECRET


async def test_workspaces_do_not_see_each_others_files(way: Way) -> None:
    async with way.open() as one, way.open() as two:
        await one.write_file("file", "one")
        await two.write_file("file", "two")
        assert (await one.read_file("file"), await two.read_file("file")) == (b"one", b"two")
