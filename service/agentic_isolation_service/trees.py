"""Directories that workloads have filled, on their way out."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> OSError | None:
    """Removes a directory and all that it holds, also where a workload has taken its own permissions away.

    However deep it is, that costs neither stack nor descriptors. What cannot be removed is left.

    Returns:
        What it has failed by, also where there was no such directory; None: it is gone.
    """
    try:
        walk = _Walk(path)
        try:
            walk.empty()
        finally:
            os.close(walk.directory)
        path.rmdir()
    except OSError as error:
        return error
    return None


class _Walk:
    """A way down through directories and up again, on which only the one that it is at is open."""

    def __init__(self, path: Path) -> None:
        self.directory = _opened(str(path), None)
        self._above: list[tuple[tuple[int, int], str, list[str]]] = []
        """Of each directory above: what it is, by which name we went down, and what else it holds."""

    def empty(self) -> None:
        waiting = self._cleared()
        while waiting or self._above:
            if not waiting:
                waiting = self._up()
            elif self._down(waiting.pop(), waiting):
                waiting = self._cleared()

    def _cleared(self) -> list[str]:
        """Removes what is here, but for directories that hold something themselves; returns those."""
        left = []
        with contextlib.suppress(OSError), os.scandir(self.directory) as scan:
            for entry in list(scan):
                is_directory = entry.is_dir(follow_symlinks=False)
                try:
                    (os.rmdir if is_directory else os.unlink)(entry.name, dir_fd=self.directory)
                except OSError:
                    left += [entry.name] if is_directory else []
        return left

    def _down(self, name: str, waiting: list[str]) -> bool:
        try:
            below = _opened(name, self.directory)
        except OSError:
            return False
        self._above.append((_identity(self.directory), name, waiting))
        os.close(self.directory)
        self.directory = below
        return True

    def _up(self) -> list[str]:
        expected, name, waiting = self._above.pop()
        above = os.open("..", _OPEN, dir_fd=self.directory)
        os.close(self.directory)
        self.directory = above
        if _identity(above) != expected:
            raise OSError(errno.ESTALE, f"{name} was moved while it was removed")
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=above)
        return waiting


def _opened(name: str, around: int | None) -> int:
    try:
        directory = os.open(name, _OPEN, dir_fd=around)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=around)
        directory = os.open(name, _OPEN, dir_fd=around)
    with contextlib.suppress(OSError):
        os.fchmod(directory, 0o700)
    return directory


def _identity(directory: int) -> tuple[int, int]:
    status = os.fstat(directory)
    return status.st_dev, status.st_ino
