"""The directory where a service keeps what it needs, held by a lock for as long as the service runs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from agentic_isolation._cleanup import finish

_PREFIX = "agentic-isolation-"


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """A directory of mode 0700 that one service at a time holds."""

    path: Path
    temporary: bool
    """Whether it goes away with the service."""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, path: Path | None) -> AsyncIterator[StateDirectory]:
        """Makes and locks the directory; a temporary one where `path` is None, which is removed on the way out.

        What services that were killed left of temporary directories is removed first.

        Raises:
            OSError: It cannot be made, or another service holds it.
        """
        opened: list[tuple[Path, int]] = []

        async def open_to_the_end() -> None:
            opened.append(await asyncio.to_thread(_open_temporary if path is None else _open_lasting, path))

        try:
            await finish(open_to_the_end())
            yield cls(opened[0][0], temporary=path is None)
        finally:
            for directory, lock in opened:
                await finish(asyncio.to_thread(_close, directory, lock, path is None))


def _open_temporary(_path: Path | None) -> tuple[Path, int]:
    _sweep(Path(tempfile.gettempdir()))
    # It gets the name that others sweep only when it is locked.
    unnamed = Path(tempfile.mkdtemp(prefix="." + _PREFIX))
    lock = _lock(unnamed)
    return unnamed.rename(unnamed.with_name(unnamed.name[1:])), lock


def _open_lasting(path: Path | None) -> tuple[Path, int]:
    if path is None:
        raise AssertionError("a lasting directory has a path")
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path, _lock(path)


def _close(directory: Path, lock: int, temporary: bool) -> None:
    if temporary:
        shutil.rmtree(directory, ignore_errors=True)
    os.close(lock)


def _lock(directory: Path) -> int:
    lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise OSError(f"another service uses {directory}; stop it, or choose another --state-dir") from None
    return lock


def _sweep(parent: Path) -> None:
    """Removes temporary directories that nobody holds any more and that have no workspace whose lease still runs."""
    for directory in parent.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):
            if directory.is_symlink() or directory.stat().st_uid != os.getuid():
                continue
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not any((directory / "w").glob("*")):
                    shutil.rmtree(directory)
            finally:
                os.close(lock)
