"""Tar streams, POSIX.1-2001 (pax): written from a directory of this machine, and read as what may come from anybody."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from agentic_isolation._ignore import IgnoreRules
from agentic_isolation.errors import BadArchiveError, FileError

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 256 << 10
_MAX_RECORDS = 1 << 20
"""Bytes of an entry's pax records."""
_MAX_NAME = 4096
"""Characters of a path: PATH_MAX, beyond which nobody could use it."""
_MAX_TIME = 1 << 33
"""Seconds since 1970, in the year 2242: beyond, file systems differ."""
_END = bytes(2 * _BLOCK)
KINDS = {tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "symlink"}


@dataclass(slots=True)
class Tally:
    """What a tar stream has held so far."""

    files: int = 0
    directories: int = 0
    symlinks: int = 0
    skipped: int = 0
    content_bytes: int = 0
    path: str = ""
    """The entry that is under way."""


def content_size(directory: str, ignored: IgnoreRules) -> int:
    """Returns the bytes of all files below a directory."""
    return sum(info.st_size for _, info in _walk(directory, ignored) if stat.S_ISREG(info.st_mode))


def pack(directory: str, ignored: IgnoreRules, tally: Tally) -> Generator[bytes, None, None]:
    """Yields a directory as a tar stream, in pieces of some 256 KiB, and counts in `tally`.

    Raises:
        FileError: A file became shorter while it was read.
        OSError: One cannot be read.
    """
    waiting = bytearray()
    for name, info in _walk(directory, ignored):
        path = os.path.join(directory, name)
        tally.path = path
        entry = tarfile.TarInfo(name)
        entry.mode, entry.mtime = stat.S_IMODE(info.st_mode) & 0o777, int(info.st_mtime)
        if stat.S_ISDIR(info.st_mode):
            entry.type = tarfile.DIRTYPE
            tally.directories += 1
        elif stat.S_ISLNK(info.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
            tally.symlinks += 1
        elif not stat.S_ISREG(info.st_mode):
            tally.skipped += 1
            continue
        else:
            for piece in _file(path, entry):
                waiting += piece
                if len(waiting) >= _CHUNK:
                    yield bytes(waiting)
                    waiting.clear()
            tally.files += 1
            tally.content_bytes += entry.size
            continue
        waiting += _header(entry)
    yield bytes(waiting + _END)


def _walk(directory: str, ignored: IgnoreRules) -> Iterator[tuple[str, os.stat_result]]:
    """Yields what lies below a directory with its path relative to it, each directory before what lies in it."""
    levels = [_entries(directory, "")]
    while levels:
        found = next(levels[-1], None)
        if found is None:
            levels.pop()
            continue
        name, entry = found
        is_directory = entry.is_dir(follow_symlinks=False)
        if ignored.ignores(name, is_directory=is_directory):
            continue
        yield name, entry.stat(follow_symlinks=False)
        if is_directory:
            levels.append(_entries(directory, name + "/"))


def _entries(directory: str, below: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(os.path.join(directory, below)) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        yield f"{below}{entry.name}", entry


def _file(path: str, entry: tarfile.TarInfo) -> Iterator[bytes]:
    """Yields a regular file, whose size is the one that it has when it is opened."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise FileError(f"{path} was replaced while it was read; try again")
        entry.size = left = info.st_size
        yield _header(entry)
        while left:
            piece = file.read(min(left, _CHUNK))
            if not piece:
                raise FileError(f"{path} became shorter while it was read; try again")
            left -= len(piece)
            yield piece
    yield bytes(-entry.size % _BLOCK)


def _header(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a tar stream says of a file."""

    name: str
    kind: str
    """"file", "directory" or "symlink"."""
    size: int
    mode: int
    """Permission bits."""
    mtime: float
    target: str
    """Of a symlink."""


class TarReader:
    """Reads a tar stream that nobody vouches for, with bounded memory.

    Args:
        read: Returns the next bytes of the stream; empty at its end.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._buffer = b""
        self._left = 0
        self._padding = 0

    def entries(self) -> Iterator[Entry]:
        """Yields the entries in order. Content that is not taken by `content` is skipped.

        Raises:
            BadArchiveError: It is no tar stream, is cut off, or holds an entry of another kind.
        """
        records: dict[str, str] = {}
        while True:
            for _ in self.content():
                pass
            self._exactly(self._padding)
            self._padding = 0
            block = self._exactly(_BLOCK)
            if not block.strip(b"\0"):
                while self._read():
                    pass  # what follows the end, so that the sender comes to its own
                return
            try:
                header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise BadArchiveError(f"no tar stream: {error}") from error
            if header.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
                found = _records(self._exactly(header.size if header.size <= _MAX_RECORDS else -1))
                self._padding = -header.size % _BLOCK
                records = found if header.type == tarfile.XHDTYPE else records
                continue
            yield self._entry(header, records)
            records = {}

    def content(self) -> Iterator[bytes]:
        """Yields the content of the latest entry in order.

        Raises:
            BadArchiveError: It is cut off.
        """
        while self._left:
            piece = self._some(self._left)
            self._left -= len(piece)
            yield piece

    def _entry(self, header: tarfile.TarInfo, records: dict[str, str]) -> Entry:
        name = records.get("path", header.name)
        kind = KINDS.get(header.type)
        if len(name) > _MAX_NAME:
            raise BadArchiveError(f"{name[:100]!r} goes on for {len(name)} characters; {_MAX_NAME} are the most")
        try:
            size, mtime = int(records.get("size", header.size)), float(records.get("mtime", header.mtime))
        except ValueError as error:
            raise BadArchiveError(f"a malformed record of {name!r}") from error
        if not abs(mtime) < _MAX_TIME:
            raise BadArchiveError(f"{name!r} is of no time that there is")
        if kind is None or size < 0 or (size and kind != "file"):
            raise BadArchiveError(f"{name!r} is no file, directory or symlink")
        self._left, self._padding = size, -size % _BLOCK
        return Entry(name, kind, size, header.mode & 0o777, mtime, records.get("linkpath", header.linkname))

    def _some(self, most: int) -> bytes:
        if not self._buffer:
            self._buffer = self._read()
            if not self._buffer:
                raise BadArchiveError("the tar stream is cut off")
        piece, self._buffer = self._buffer[:most], self._buffer[most:]
        return piece

    def _exactly(self, size: int) -> bytes:
        if size < 0:
            raise BadArchiveError("the records of an entry are too long")
        found = bytearray()
        while len(found) < size:
            found += self._some(size - len(found))
        return bytes(found)


def _records(data: bytes) -> dict[str, str]:
    """Returns pax records: each is LENGTH, a space, NAME=VALUE and a newline, LENGTH in bytes of all of it."""
    records = {}
    start, end = 0, len(data.rstrip(b"\0"))
    while start < end:
        space = data.find(b" ", start, start + 8)
        digits = data[start:space] if space > start else b""
        stop = start + int(digits) if digits.isdigit() else 0
        name, separator, value = data[space + 1 : stop].partition(b"=")
        if not start < stop <= end or not separator or not value.endswith(b"\n"):
            raise BadArchiveError("a malformed record of an entry")
        records[name.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
        start = stop
    return records
