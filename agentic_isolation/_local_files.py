"""Files of this machine that a download writes: each appears as a whole, and nothing of it outside its directory."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import secrets
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from agentic_isolation._tar import Entry, Tally, TarReader
from agentic_isolation.errors import BadArchiveError, NotARegularFileError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CLOEXEC
_NAMELESS: int | None = getattr(os, "O_TMPFILE", None)
"""Linux only."""
_FLUSH_AT = 1 << 20
"""Bytes."""


class AtomicFile:
    """A file that gets its name when it is complete. Left without `commit`, it leaves nothing.

    Until then it has no name at all, where the file system can do that (O_TMPFILE, open(2)): a program that is killed
    leaves nothing either.

    Args:
        directory: Descriptor of its directory.
        name: Its name there. A file or symlink of that name is replaced; a device, a pipe or a socket is not.
    """

    def __init__(self, directory: int, name: str) -> None:
        self._directory = directory
        self._name = name
        self._temporary = _temporary_name()
        self._named = False
        try:
            if _NAMELESS is None:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            self._file = os.open(".", _WRITE | _NAMELESS, 0o600, dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                raise
            flags = _WRITE | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._file = os.open(self._temporary, flags, 0o600, dir_fd=directory)
            self._named = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._named:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)
        os.close(self._file)

    def write(self, data: bytes | bytearray) -> None:
        """Appends bytes."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def commit(self, mode: int, mtime: float | None = None) -> None:
        """Gives the file its permission bits, its time, and then its name.

        Raises:
            NotARegularFileError: What has that name is nothing to be replaced.
        """
        os.fchmod(self._file, mode & 0o777)
        if mtime is not None:
            os.utime(self._file, (mtime, mtime))
        if not self._named:
            try:
                self._link(self._name)
            except FileExistsError:
                self._link(self._temporary)
                self._named = True
        if self._named:
            with contextlib.suppress(FileNotFoundError):
                _refuse_special(os.lstat(self._name, dir_fd=self._directory), self._name)
            os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self._named = False

    def _link(self, name: str) -> None:
        os.link(f"/proc/self/fd/{self._file}", name, dst_dir_fd=self._directory, follow_symlinks=True)


class Source:
    """A file that is read, piece by piece, by one thread after another.

    Args:
        path: Where it is.

    Raises:
        NotARegularFileError: It is a device, a pipe or a socket.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        _refuse_special(path.stat(), path)  # a socket cannot even be opened
        # A pipe would be waited for until somebody opens its other end.
        self._file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0)
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode):
            self._file.close()
            raise NotARegularFileError(f"{path} is no regular file")
        self._lock = threading.Lock()
        self._digest = hashlib.sha256()
        self.mode = stat.S_IMODE(status.st_mode) & 0o777
        self.size = status.st_size
        self.done = 0
        """Bytes read so far."""

    def read(self, most: int) -> bytes:
        """Returns the next bytes; empty at the end, and after `close`."""
        with self._lock:
            data = b"" if self._file.closed else self._file.read(most)
            self._digest.update(data)
            self.done += len(data)
            return data

    def sha256(self) -> bytes:
        """Returns the digest of what was read."""
        return self._digest.digest()

    def close(self) -> None:
        """Closes the file, after a read that is under way. May be called twice."""
        with self._lock:
            self._file.close()


class Target:
    """A file that is written piece by piece, and appears when it is committed. Missing parents are made.

    Args:
        path: Where it is to be.

    Raises:
        NotARegularFileError: There is a device, a pipe or a socket, or a symlink to one.
        OSError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            status = path.stat()
        except OSError:
            pass  # what follows says what is wrong
        else:
            _refuse_special(status, path)
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _about(path):
                self._file = AtomicFile(self._directory, path.name)
        except BaseException:
            os.close(self._directory)
            raise
        self._waiting = bytearray()
        self._digest = hashlib.sha256()
        self.done = 0
        """Bytes put in so far."""

    def put(self, data: bytes) -> bool:
        """Adds bytes; returns whether it is time to flush them."""
        self._waiting += data
        self.done += len(data)
        return len(self._waiting) >= _FLUSH_AT

    def flush(self) -> None:
        """Writes what was put in."""
        with _about(self._path):
            self._file.write(self._waiting)
        self._digest.update(self._waiting)
        self._waiting.clear()

    def sha256(self) -> bytes:
        """Returns the digest of what was flushed."""
        return self._digest.digest()

    def commit(self, mode: int) -> None:
        """Makes it appear, with the permission bits that the umask leaves."""
        with _about(self._path):
            self._file.commit(mode & ~_umask())

    def close(self) -> None:
        """Lets go of it; without `commit`, nothing of it is left."""
        self._file.__exit__(None, None, None)
        os.close(self._directory)


def unpack(directory: str, reader: TarReader, tally: Tally) -> None:
    """Unpacks a tar stream that nobody vouches for below a directory, which is made if missing; counts in `tally`.

    What is there already is merged with: files are replaced, symlinks are not followed. Symlinks that lead out of the
    directory are left out.

    Raises:
        BadArchiveError: It is no tar stream, is cut off, or holds what may not be unpacked.
        OSError: This machine's file system refuses something.
    """
    os.makedirs(directory, exist_ok=True)
    umask = _umask()
    with _Tree(directory) as tree:
        for entry in reader.entries():
            parts = _parts(entry.name)
            tally.path = posixpath.join(directory, *parts)
            if not parts and entry.kind != "directory":
                raise BadArchiveError(f"an entry without a name of its own: {entry.name!r}")
            with _about(tally.path):
                _unpack_entry(tree, parts, entry, reader, tally, umask)


def _unpack_entry(
    tree: _Tree, parts: tuple[str, ...], entry: Entry, reader: TarReader, tally: Tally, umask: int
) -> None:
    if entry.kind == "directory":
        tree.make(parts, entry.mode)
        tally.directories += 1
    elif entry.kind == "file":
        with AtomicFile(tree.open(parts[:-1]), parts[-1]) as file:
            for piece in reader.content():
                file.write(piece)
                tally.content_bytes += len(piece)
            file.commit(entry.mode & ~umask, entry.mtime)
        tally.files += 1
    elif _leads_out(parts, entry.target):
        tally.skipped += 1
    else:
        tree.link(parts, entry.target)
        tally.symlinks += 1


class _Tree:
    """Directories below one, by their descriptors: what a path leads to is never a symlink's doing."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._latest: tuple[str, ...] = ()
        self._descriptor = self._root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()
        os.close(self._root)

    def open(self, parts: tuple[str, ...]) -> int:
        """Returns the descriptor of a directory, made if missing; it is good until the next call."""
        if parts != self._latest:
            self._leave()
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o777, dir_fd=self._descriptor)
                below = os.open(part, _DIRECTORY, dir_fd=self._descriptor)
                self._close()
                self._descriptor = below
            self._latest = parts
        return self._descriptor

    def make(self, parts: tuple[str, ...], mode: int) -> None:
        """Makes a directory, to which its owner has access whatever its mode, or is content with one that is there."""
        if parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(parts[-1], mode | stat.S_IRWXU, dir_fd=self.open(parts[:-1]))
            self.open(parts)

    def link(self, parts: tuple[str, ...], target: str) -> None:
        """Makes a symlink, in place of a file or symlink that is there."""
        directory = self.open(parts[:-1])
        temporary = _temporary_name()
        os.symlink(target, temporary, dir_fd=directory)
        try:
            os.rename(temporary, parts[-1], src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(temporary, dir_fd=directory)
            raise

    def _leave(self) -> None:
        self._close()
        self._descriptor = self._root
        self._latest = ()

    def _close(self) -> None:
        if self._descriptor != self._root:
            os.close(self._descriptor)
            self._descriptor = self._root


def _refuse_special(status: os.stat_result, path: str | Path) -> None:
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode) and not stat.S_ISLNK(status.st_mode):
        raise NotARegularFileError(f"{path} is a device, a pipe or a socket")


@contextlib.contextmanager
def _about(path: str | Path) -> Iterator[None]:
    """Has errors of calls that know of no more than a directory's descriptor name the path that they are about."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
            del error.filename2  # None would be shown as the name of another file
        raise


def _temporary_name() -> str:
    """Returns a name for what is not complete. It holds nothing of the final one, which may be as long as names get."""
    return f".{secrets.token_hex(8)}.part"


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise BadArchiveError(f"{name!r} leads out of the directory")
    return parts


def _leads_out(parts: tuple[str, ...], target: str) -> bool:
    """Whether a symlink at a place may lead out of the directory that is unpacked into.

    Going up only at its beginning, no more often than there are directories above it, it does not, wherever other
    symlinks of this kind lead that lie on its way.
    """
    steps = [step for step in target.split("/") if step not in ("", ".")]
    up = next((count for count, step in enumerate(steps) if step != ".."), len(steps))
    return not target or target.startswith("/") or "\0" in target or up >= len(parts) or ".." in steps[up:]


def _umask() -> int:
    """Returns the file mode creation mask, which can only be read from the kernel's description of this process."""
    with (
        contextlib.suppress(FileNotFoundError),
        open("/proc/self/status", encoding="ascii", errors="replace") as status,
    ):
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return stat.S_IWGRP | stat.S_IWOTH
