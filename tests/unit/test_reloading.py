"""What is made of files: made anew when they change, and when they can be read again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agentic_isolation_service.rpc.reloading import Reloaded


class Reader:
    """Reads a file, as long as it may."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.fails = False

    def __call__(self) -> str:
        if self.fails:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(self._file))
        return self._file.read_text()


def test_file_that_could_not_be_read_is_read_when_it_can(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process may have had no file descriptor left at the very moment in which a certificate was renewed."""
    file = tmp_path / "key"
    file.write_text("old")
    reader = Reader(file)
    reloaded = Reloaded("the key", [file], reader)
    file.write_text("new!")
    reader.fails = True
    assert [reloaded.look() for _ in range(3)] == ["old"] * 3
    assert caplog.text.count("Too many open files") == 1
    reader.fails = False
    assert reloaded.look() == "new!"
    assert reloaded.look() == "new!"
