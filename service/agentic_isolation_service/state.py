"""The directory where a service keeps what it needs, held by a lock for as long as the service runs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

from agentic_isolation._cleanup import finish
from agentic_isolation._nested import nested
from agentic_isolation.errors import ProviderUnavailableError
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.guest.binary import guest_binary
from agentic_isolation_service.trees import remove_tree

_PREFIX = "agentic-isolation-"
_OURS = frozenset({"lock", "identity", "registry.db"})
"""Files that a state directory has, the last two of them also when it was restored."""
_WATCHER_PATIENCE = 10.0
"""Seconds that the end of a process with nothing left to do may take."""
_LOOK_AGAIN = 0.1
"""Seconds between two attempts to take a directory over."""
_log = logging.getLogger(__name__)


class DirectoryTakenError(OSError):
    """Another service holds the directory."""


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """A directory of mode 0700 that one service at a time holds."""

    path: Path
    temporary: bool
    """Whether it goes away with the service."""
    identity: Identity
    """Of the services that hold it, one after the other."""

    @classmethod
    @nested
    async def open(cls, path: Path | None, *, patience: float = 0) -> AsyncIterator[StateDirectory]:
        """Makes and locks the directory; a temporary one where `path` is None, which is removed on the way out.

        What services that were killed left of temporary directories is removed first.

        Args:
            path: The directory.
            patience: Seconds to wait for another service that holds it to end.

        Raises:
            OSError: It cannot be made or read, or another service goes on holding it.
        """
        opened: list[_Held] = []

        async def open_to_the_end() -> None:
            opened.append(await asyncio.to_thread(_Temporary.open if path is None else _Held.open, path))

        try:
            await _patiently(open_to_the_end, patience)
            held = opened[0]
            identity = Identity.new() if path is None else await asyncio.to_thread(_identity, held.path / "identity")
            yield cls(held.path, temporary=path is None, identity=identity)
        finally:
            for directory in opened:
                await finish(asyncio.to_thread(directory.close))


class _Held:
    """A directory that is locked."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path | None) -> _Held:
        if path is None:
            raise AssertionError("a lasting directory has a path")
        path = path.absolute()
        path.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(path)
        path.chmod(0o700)
        return cls(path, _lock(path))

    def close(self) -> None:
        os.close(self._lock)


class _Temporary(_Held):
    """A directory that goes away with its service, however that ends."""

    def __init__(self, path: Path, lock: int) -> None:
        super().__init__(path, lock)
        self._watcher: subprocess.Popen[bytes] | None = None
        # A platform without a guest leaves the directory to the next service's sweep.
        with contextlib.suppress(ProviderUnavailableError):
            self._watcher = subprocess.Popen(
                [str(guest_binary()), "sweep", str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"GOMAXPROCS": "1"},
                cwd="/",
                start_new_session=True,  # what a terminal sends to the service is not for it
            )

    @classmethod
    def open(cls, _path: Path | None) -> _Temporary:
        _sweep(Path(tempfile.gettempdir()))
        # It gets the name that others sweep only when it is locked.
        unnamed = Path(tempfile.mkdtemp(prefix="." + _PREFIX))
        named = unnamed.with_name(unnamed.name[1:])
        with contextlib.ExitStack() as undoing:
            for path in (unnamed, named):
                undoing.callback(shutil.rmtree, path, ignore_errors=True)
            lock = _lock(unnamed)
            undoing.callback(os.close, lock)
            held = cls(unnamed.rename(named), lock)
            undoing.pop_all()
        return held

    def close(self) -> None:
        remove_tree(self.path)
        super().close()
        if self._watcher is not None and self._watcher.stdin is not None:
            self._watcher.stdin.close()
            self._watcher.wait(_WATCHER_PATIENCE)


async def _patiently(take: Callable[[], Coroutine[object, object, None]], patience: float) -> None:
    """Takes a directory, again and again while another service holds it."""
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    told = False
    while True:
        refused: list[DirectoryTakenError] = []
        await finish(_attempt(take, refused))
        if not refused:
            return
        if loop.time() >= until:
            raise refused[0]
        if not told:
            _log.info("%s; waiting %g s for it to end", refused[0], patience)
            told = True
        await asyncio.sleep(_LOOK_AGAIN)


async def _attempt(take: Callable[[], Coroutine[object, object, None]], refused: list[DirectoryTakenError]) -> None:
    """Takes a directory, or notes why not: whoever is cancelled meanwhile does not wait to hear of it."""
    try:
        await take()
    except DirectoryTakenError as error:
        refused.append(error)


def _identity(path: Path) -> Identity:
    """Returns the identity in a file, which is made where there is none.

    Raises:
        OSError: It is damaged.
    """
    with contextlib.suppress(FileNotFoundError):
        try:
            stored = json.loads(path.read_bytes())
            return Identity(str(stored["service_id"]), bytes.fromhex(stored["secret"]))
        except (ValueError, KeyError, TypeError):
            raise OSError(
                f"{path} is damaged. With it restored, the service finds its workspaces again; with it removed, "
                "they are left to their leases"
            ) from None
    identity = Identity.new()
    unfinished = path.with_name(f".{path.name}.{time.time_ns()}")
    try:
        with open(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            json.dump({"service_id": identity.service_id, "secret": identity.secret.hex()}, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return identity


def _refuse_foreign(directory: Path) -> None:
    """Raises OSError where others may use a directory, and what is in it is none of ours: /tmp, or /var/lib."""
    found = set(os.listdir(directory)) - {"lost+found"}
    if found and found.isdisjoint(_OURS) and directory.stat().st_mode & 0o077:
        raise OSError(
            f"{directory} has other things in it, as {min(found)}, and would be closed to all but its owner; name a "
            "directory of the service's own for --state-dir, which is made where there is none"
        )


def _lock(directory: Path) -> int:
    lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise DirectoryTakenError(f"another service uses {directory}; stop it, or choose another --state-dir") from None
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
