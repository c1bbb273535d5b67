"""A workspace's files, through its guest."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from agentic_isolation.errors import FileError, InvalidArgumentError, IsolationError
from agentic_isolation.models import FileInfo
from agentic_isolation_service.core.transfers import Download, Explain, Upload
from agentic_isolation_service.core.validation import check_path, refuse
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.frames import ProtocolError
from agentic_isolation_service.guest.session import GuestSession

MAX_PAGE = 1000
MAX_DEPTH = 1000
_MAX_OFFSET = (1 << 63) - 1
"""Where the guest's numbers end, far beyond any file's end."""


async def stat(session: GuestSession, path: str, *, follow: bool = True) -> FileInfo:
    """Describes a file; `follow` tells whether a symlink stands for what it points to.

    Raises:
        FileError, PathEscapesError: It is not there, or may not be looked at.
    """
    check_path(path, "path")
    with field_named("path"):
        return await session.call_for({"op": "stat", "path": path, "follow": follow}, payloads.file_info)


async def list_directory(
    session: GuestSession, path: str, limit: int, token: str, *, depth: int = 1
) -> tuple[list[FileInfo], str]:
    """Returns a page of a directory's entries, sorted by name, and the token of the next page; "" on the last one.

    Args:
        session: The tie to its guest.
        path: The directory.
        limit: How many entries at most.
        token: Of this page; empty: the first one.
        depth: How many levels to list; each directory is followed by what lies in it.

    Raises:
        InvalidArgumentError: A number is out of range, or the token is none that was given out for this depth.
        FileError, PathEscapesError: It is no directory, or may not be looked at.
    """
    check_path(path, "path")
    if not 1 <= limit <= MAX_PAGE:
        raise refuse("page_size", f"{limit} is not from 1 to {MAX_PAGE}")
    if not 1 <= depth <= MAX_DEPTH:
        raise refuse("depth", f"{depth} is not from 1 to {MAX_DEPTH}")
    operation: dict[str, object] = {"op": "list", "path": path, "limit": limit}
    if token:
        operation["after"] = _parse_token(token, depth)
    with field_named("path"):
        if depth == 1:
            entries, last = await session.call_for(operation, _page)
        else:
            entries, last = await session.call_for(operation | {"depth": depth}, _page, since=3)
    return entries, _token(last, depth) if last else ""


async def make_directory(session: GuestSession, path: str, *, mode: int = 0o755, parents: bool = False) -> FileInfo:
    """Makes a directory; `parents` makes missing parents and is content with a directory that is there.

    Raises:
        FileError, PathEscapesError: It cannot be made.
    """
    check_path(path, "path")
    _check_mode(mode)
    operation: dict[str, object] = {"op": "mkdir", "path": path, "mode": mode, "parents": parents}
    with field_named("path"):
        return await session.call_for(operation, payloads.file_info)


async def remove(session: GuestSession, path: str, *, recursive: bool = False) -> None:
    """Removes a file, a symlink itself, or a directory; `recursive` with all that it holds.

    Raises:
        FileError, PathEscapesError: It cannot be removed.
    """
    check_path(path, "path")
    with field_named("path"):
        await session.call({"op": "remove", "path": path, "recursive": recursive})


async def move(session: GuestSession, source: str, destination: str, *, overwrite: bool = False) -> FileInfo:
    """Moves a file or directory within the workspace; `overwrite` replaces a file that is there.

    Raises:
        FileError, PathEscapesError: It cannot be moved.
    """
    operation: dict[str, object] = {"op": "move", "overwrite": overwrite}
    return await _between(session, operation, source, destination, since=1)


async def copy(
    session: GuestSession, source: str, destination: str, *, overwrite: bool = False, recursive: bool = False
) -> FileInfo:
    """Copies a file, a symlink itself, or a directory.

    Args:
        session: The tie to its guest.
        source: What to copy.
        destination: The path of the copy.
        overwrite: Replace a file that is there.
        recursive: Copy a directory with all that it holds.

    Raises:
        FileError, PathEscapesError: It cannot be copied; nothing of it is at the destination.
    """
    operation: dict[str, object] = {"op": "copy", "overwrite": overwrite, "recursive": recursive}
    return await _between(session, operation, source, destination, since=3)


async def change_mode(session: GuestSession, path: str, mode: int) -> FileInfo:
    """Sets permission bits, of what a symlink points to.

    Raises:
        FileError, PathEscapesError: They cannot be set.
    """
    check_path(path, "path")
    _check_mode(mode)
    with field_named("path"):
        return await session.call_for({"op": "chmod", "path": path, "mode": mode}, payloads.file_info, since=3)


@dataclass(frozen=True, slots=True)
class Content:
    """What a transfer of a file's content has come to."""

    size_bytes: int
    sha256: bytes
    """Empty where no digest was asked for."""


async def read(
    session: GuestSession, path: str, offset: int, length: int | None, *, digest: bool = False
) -> Download[Content]:
    """Opens a file for reading `length` bytes from `offset`; None: to its end.

    Raises:
        IsolationError: As GuestSession.open.
    """
    check_path(path, "path")
    operation: dict[str, object] = {"op": "read", "path": path, "offset": min(offset, _MAX_OFFSET)}
    if length is not None:
        operation["length"] = min(length, _MAX_OFFSET)
    since = _ask_for_digest(operation, digest)
    return Download(session, await session.open(operation, since=since), _content, naming("path"))


async def write(
    session: GuestSession, path: str, mode: int | None, *, digest: bool = False
) -> Upload[tuple[FileInfo, bytes]]:
    """Opens a file for writing. It takes its name's place, and its digest is known, when the upload is finished.

    Raises:
        IsolationError: As GuestSession.open.
    """
    check_path(path, "path")
    operation: dict[str, object] = {"op": "write", "path": path}
    if mode is not None:
        _check_mode(mode)
        operation["mode"] = mode
    since = _ask_for_digest(operation, digest)
    return Upload(session, await session.open(operation, since=since), _written, naming("path"))


def naming(field: str) -> Explain:
    """Returns what names the field whose path leads out or makes no sense: the guest knows no names of fields."""

    def explain(error: IsolationError) -> IsolationError:
        if isinstance(error, InvalidArgumentError) and error.field is None:
            return type(error)(error.message, field=field)
        return error

    return explain


@contextlib.contextmanager
def field_named(field: str) -> Iterator[None]:
    """Names the field whose path leads out of the workspace, or makes no sense, in what is raised within."""
    try:
        yield
    except InvalidArgumentError as error:
        raise naming(field)(error) from error


async def _between(
    session: GuestSession, operation: dict[str, object], source: str, destination: str, *, since: int
) -> FileInfo:
    """Carries out an operation from one path to another."""
    check_path(source, "source_path")
    check_path(destination, "destination_path")
    try:
        return await session.call_for(operation | {"from": source, "to": destination}, payloads.file_info, since=since)
    except InvalidArgumentError as error:
        at_fault = "destination_path"
        with field_named("source_path"), contextlib.suppress(FileError):
            look: dict[str, object] = {"op": "stat", "path": source, "follow": False}
            found = await session.call_for(look, payloads.file_info)
            if operation["op"] == "move" and found.path == (await stat(session, ".")).path:
                at_fault = "source_path"  # The working directory itself stays, wherever it is to go.
        raise naming(at_fault)(error) from error


def _ask_for_digest(operation: dict[str, object], digest: bool) -> int:
    """Asks for a digest where one is wanted; returns the protocol version that it takes."""
    if not digest:
        return 1
    operation["digest"] = True
    return 3


def _check_mode(mode: int) -> None:
    if not 0 <= mode <= 0o777:
        raise refuse("mode", f"0o{mode:o} is not from 0 to 0o777")


def _page(value: dict[str, object]) -> tuple[list[FileInfo], str]:
    entries = value.get("entries")
    if not isinstance(entries, list) or len(entries) > MAX_PAGE:
        raise ProtocolError("malformed directory page from the guest")
    files = [payloads.file_info(entry) for entry in entries]
    if not files or not payloads.member(value, "more", bool):
        return files, ""
    return files, payloads.member(value, "next", str, files[-1].name)


def _token(last: str, depth: int) -> str:
    return base64.urlsafe_b64encode(f"{depth} {last}".encode()).decode()


def _parse_token(token: str, depth: int) -> str:
    """Returns the last entry of the page before, as the guest names it."""
    try:
        of_depth, _, last = base64.b64decode(token, altchars=b"-_", validate=True).decode().partition(" ")
    except ValueError:
        of_depth, last = "", ""
    if of_depth != str(depth) or not last or "\0" in last:
        raise refuse("page_token", "not a token that this service gave out for a listing of this depth")
    return last


def _content(value: dict[str, object]) -> Content:
    return Content(payloads.member(value, "bytes", int), payloads.digest(value))


def _written(value: dict[str, object]) -> tuple[FileInfo, bytes]:
    return payloads.file_info(value), payloads.digest(value)
