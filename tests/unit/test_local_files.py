"""Files of this machine that transfers read and write: what may be called how, and that nothing of them stays open."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agentic_isolation._connection import Connection
from agentic_isolation._local_files import Target, unpack
from agentic_isolation._retry import Patience
from agentic_isolation._tar import Tally, TarReader
from agentic_isolation._transfers import Transfers
from agentic_isolation.v1 import workspace_pb2 as pb
from tests.support import proc

LONGEST = 255
"""Bytes of a name."""


@pytest.mark.parametrize("character", ["x", "é", "漢", "\U0001f600"])
def test_names_of_any_length_are_written_and_replaced(tmp_path: Path, character: str) -> None:
    path = tmp_path / (character * (LONGEST // len(character.encode())))
    for content in (b"first", b"second"):
        target = Target(path)
        try:
            target.put(content)
            target.flush()
            target.commit(0o644)
        finally:
            target.close()
        assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_error_of_a_write_names_the_file_and_no_other(tmp_path: Path) -> None:
    """Such as that the disk is full."""
    target = Target(tmp_path / "file")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        target.put(b"x" * 100)
        with pytest.raises(OSError, match="too large") as refused:
            target.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        target.close()
    assert str(refused.value) == f"[Errno {errno.EFBIG}] File too large: '{tmp_path}/file'"


def test_errors_name_the_whole_path(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011  whatever /proc says
        Target(Path("/proc/file"))
    assert caught.value.filename == "/proc/file"
    (tmp_path / "file").touch()
    entry = tarfile.TarInfo("file/below").tobuf()
    with pytest.raises(NotADirectoryError) as below:
        unpack(str(tmp_path), TarReader(iter([entry]).__next__), Tally())
    assert below.value.filename == str(tmp_path / "file/below")


class Unhurried:
    """A service that has a file, and does something first when a transfer of it begins."""

    stub = SimpleNamespace(StatFile=None)

    def __init__(self, first: Callable[[], object]) -> None:
        self._first = first
        self.begun = asyncio.Event()

    async def call(self, *_: object) -> pb.StatFileResponse:
        return pb.StatFileResponse(file=pb.FileInfo(path="/workspace/file", type=pb.FILE_TYPE_FILE))

    def patience(self) -> Patience:
        self._first()
        self.begun.set()
        return Patience(0)


@contextlib.contextmanager
def one_thread() -> Iterator[tuple[Callable[[], object], threading.Event]]:
    """Yields what keeps the only thread of the event loop busy, and what lets it go on."""
    executor, let_go = ThreadPoolExecutor(1), threading.Event()
    asyncio.get_running_loop().set_default_executor(executor)
    try:
        yield lambda: executor.submit(let_go.wait), let_go
    finally:
        let_go.set()


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_cancelled_while_a_file_is_opened_nothing_stays_open(tmp_path: Path, direction: str) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "into").mkdir()
    with one_thread() as (occupy, let_go):
        service = Unhurried(occupy)
        transfers = Transfers(cast("Connection", cast("Any", service)), "ws")
        before = await asyncio.to_thread(proc.open_files, os.getpid())
        moving = asyncio.create_task(
            transfers.upload(tmp_path / "file", None, (), None)
            if direction == "up"
            else transfers.download("file", tmp_path / "into", (), None)
        )
        await service.begun.wait()
        for _ in range(10):
            await asyncio.sleep(0)  # until it waits for the thread
        for _ in range(2):
            moving.cancel()
            await asyncio.sleep(0)
        let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await moving
        assert await asyncio.to_thread(proc.open_files, os.getpid()) == before
        assert not await asyncio.to_thread(lambda: list((tmp_path / "into").iterdir()))
