"""The file of an audit log: one writer, entries at its end only, and a chain that goes on over restarts and files."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentic_isolation_service.audit.chain import (
    NOTHING,
    VERSION,
    BrokenSealError,
    UnsealedError,
    seal,
    timestamp,
    unseal,
)
from agentic_isolation_service.audit.verifying import MAX_LINE, TamperedError, Verifier

_TAIL = 2 * MAX_LINE
"""Bytes at the end of a file that are verified when a service goes on with it."""
_FIRST = b'{"sequence":'
"""What an entry begins with."""
_log = logging.getLogger(__name__)


class AuditFile:
    """A file that is open for entries and locked. All of it blocks; one thread appends.

    It only ever appends, so the file may have the attribute `a` of chattr(1).
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._swap = threading.Lock()
        self._unsynced = False
        self._rest = b""
        self._size = 0
        self.chain = ""
        """The chain's name."""
        self.head = NOTHING
        """Hash of the last entry."""
        self.sequence = 0
        """Number of the last entry."""

    @classmethod
    def open(cls, path: Path) -> AuditFile:
        """Opens a file, made with mode 0600 where there is none, and repairs what a service that was killed has torn.

        Raises:
            OSError: It cannot be opened or written, another service writes to it, or its end is not what was written.
        """
        file = cls(path, _opened(path))
        try:
            file._size = os.fstat(file._descriptor).st_size
            if not file._go_on():
                file.chain = secrets.token_hex(8)
                file._begin()
        except BaseException as error:
            os.close(file._descriptor)
            if isinstance(error, OSError) and error.errno is not None and error.filename is None:
                raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file
            raise
        return file

    def follow(self) -> None:
        """Sees to it that the file is the one of its name: where that was moved away, the chain goes on in a new one.

        Raises:
            OSError: There cannot be a new one, or somebody else has written to the file or cut it.
        """
        try:
            named: os.stat_result | None = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            named = None
        ours = os.fstat(self._descriptor)
        if named is None or not os.path.samestat(named, ours):
            self._change()
        elif ours.st_size != self._size:
            raise OSError(
                f"{self._path} has {ours.st_size} bytes, and {self._size} were written: somebody else has cut it or "
                "written to it. Move it away, and the log goes on in a new file"
            )

    def add(self, entries: Sequence[Mapping[str, object]]) -> None:
        """Seals entries, for `flush` to write."""
        lines = [self._rest]
        for entry in entries:
            self.sequence += 1
            line, self.head = seal({"sequence": self.sequence, **entry}, self.head)
            lines.append(line)
        self._rest = b"".join(lines)

    def flush(self) -> None:
        """Writes what was sealed and is not written yet.

        Raises:
            OSError: It cannot; called again, it goes on where it has stopped.
        """
        while self._rest:
            written = os.write(self._descriptor, self._rest)
            self._size += written
            self._rest = self._rest[written:]
            self._unsynced = True

    def sync(self) -> None:
        """Returns when all that was written is on the disk.

        Raises:
            OSError: The disk has failed.
        """
        with self._swap:
            if self._unsynced:
                self._unsynced = False
                try:
                    os.fdatasync(self._descriptor)
                except OSError:
                    self._unsynced = True
                    raise

    def close(self) -> None:
        """Closes the file, with what was written on the disk if that can be. May be called once."""
        with contextlib.suppress(OSError):
            self.sync()
        with self._swap:
            os.close(self._descriptor)

    def _begin(self) -> None:
        """Writes the first entry of a file."""
        _restrict(self._descriptor)
        self.add([own_entry("chain", chain=self.chain, version=VERSION)])
        self.flush()
        _sync_directory(self._path.parent)

    def _change(self) -> None:
        descriptor = _opened(self._path)
        try:
            if os.fstat(descriptor).st_size:
                raise OSError(f"{self._path} is another file now, which is not empty; move it away")
            _restrict(descriptor)
            self.sync()
        except BaseException:
            os.close(descriptor)
            raise
        with self._swap:
            os.close(self._descriptor)
            self._descriptor, self._size = descriptor, 0
        _log.info("the audit log goes on in a new file", extra={"path": str(self._path), "head": self.head})
        self._begin()

    def _go_on(self) -> bool:
        """Verifies the end of a file that was there before and takes up its chain; returns whether there is one."""
        start = max(0, self._size - _TAIL)
        *lines, unfinished = os.pread(self._descriptor, self._size - start, start).split(b"\n")
        if start:
            lines = list(itertools.dropwhile(lambda line: not _is_sealed(line), lines[1:]))
        elif not lines and _is_beginning(unfinished):
            if unfinished:  # not even its first entry was ever whole
                os.ftruncate(self._descriptor, 0)
                self._size = 0
            return False
        verifier = Verifier(None)
        try:
            for number, line in enumerate(lines):
                verifier.read(line, number, first=not start and number == 0)
            if _is_sealed(unfinished):
                verifier.read(unfinished, len(lines), first=not start and not lines)
                damage = b""
            else:
                damage = verifier.damage + (unfinished and unfinished + b"\n")
            if verifier.entries == 0:
                raise TamperedError(0, "it ends in no entry")
        except TamperedError as error:
            raise OSError(
                f"{self._path} is no audit log, or its end was tampered with ({error}): see what `agentic-isolation "
                f"audit verify {self._path}` says, and move it away; a new one begins another chain"
            ) from None
        self.chain = verifier.chain or self._name_of_chain()
        self.head, self.sequence = verifier.head or NOTHING, verifier.sequence or 0
        self._rest = b"\n" if unfinished else b""
        _restrict(self._descriptor)
        if damage:
            _log.warning("the audit log was torn by a service that was killed", extra={"torn_bytes": len(damage)})
            self.add([own_entry("torn", bytes=len(damage), sha256=hashlib.sha256(damage).hexdigest())])
        self.flush()
        return True

    def _name_of_chain(self) -> str:
        first = os.pread(self._descriptor, MAX_LINE, 0).split(b"\n", 1)[0]
        try:
            return str(unseal(first).content["chain"])
        except (UnsealedError, BrokenSealError, KeyError) as error:
            raise OSError(f"{self._path} does not begin as an audit log does: {error}") from None


def own_entry(event: str, **content: object) -> dict[str, object]:
    """Returns an entry about the log itself."""
    return {"time": timestamp(time.time_ns()), "event": event, **content}


def _is_beginning(line: bytes) -> bool:
    """Returns whether a file's only line is empty, or can be what there is of its first entry; NUL was not written."""
    written = line.rstrip(b"\0")
    return not _is_sealed(line) and (_FIRST.startswith(written) or written.startswith(_FIRST))


def _is_sealed(line: bytes) -> bool:
    try:
        unseal(line)
    except UnsealedError:
        return False
    except BrokenSealError:
        pass
    return True


def _opened(path: Path) -> int:
    """Opens and locks a file.

    Raises:
        OSError: It cannot be opened, or another service writes to it.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no regular file; name one for the audit log")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"another service writes to {path}; give each its own audit log") from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _restrict(descriptor: int) -> None:
    """Keeps a file from others, once it is known that it is a log's."""
    if os.fstat(descriptor).st_mode & 0o077:
        os.fchmod(descriptor, 0o600)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
