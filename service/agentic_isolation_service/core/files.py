"""A workspace's files, through its guest."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self

from agentic_isolation.errors import PathEscapesError, UnavailableError
from agentic_isolation.models import FileInfo
from agentic_isolation_service.core.validation import check_path, refuse
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.channel import Channel
from agentic_isolation_service.guest.frames import FrameType, ProtocolError
from agentic_isolation_service.guest.link import LinkLostError
from agentic_isolation_service.guest.session import GuestSession, guest_error

MAX_PAGE = 1000
_MAX_OFFSET = (1 << 63) - 1
"""Where the guest's numbers end, far beyond any file's end."""


async def stat(session: GuestSession, path: str, *, follow: bool = True) -> FileInfo:
    """Describes a file; `follow` tells whether a symlink stands for what it points to.

    Raises:
        FileError, PathEscapesError: It is not there, or may not be looked at.
    """
    check_path(path, "path")
    with _escape_named("path"):
        return await session.call_for({"op": "stat", "path": path, "follow": follow}, payloads.file_info)


async def list_directory(session: GuestSession, path: str, limit: int, after: str) -> tuple[list[FileInfo], str]:
    """Returns a page of a directory's entries, sorted by name, and the name to go on after; "" on the last page.

    Raises:
        FileError, PathEscapesError: It is no directory, or may not be looked at.
    """
    check_path(path, "path")
    if not 1 <= limit <= MAX_PAGE:
        raise refuse("page_size", f"{limit} is not from 1 to {MAX_PAGE}")
    operation: dict[str, object] = {"op": "list", "path": path, "limit": limit}
    if after:
        operation["after"] = after
    with _escape_named("path"):
        return await session.call_for(operation, _page)


async def make_directory(session: GuestSession, path: str, *, mode: int = 0o755, parents: bool = False) -> FileInfo:
    """Makes a directory; `parents` makes missing parents and is content with a directory that is there.

    Raises:
        FileError, PathEscapesError: It cannot be made.
    """
    check_path(path, "path")
    _check_mode(mode)
    operation: dict[str, object] = {"op": "mkdir", "path": path, "mode": mode, "parents": parents}
    with _escape_named("path"):
        return await session.call_for(operation, payloads.file_info)


async def remove(session: GuestSession, path: str, *, recursive: bool = False) -> None:
    """Removes a file, a symlink itself, or a directory; `recursive` with all that it holds.

    Raises:
        FileError, PathEscapesError: It cannot be removed.
    """
    check_path(path, "path")
    with _escape_named("path"):
        await session.call({"op": "remove", "path": path, "recursive": recursive})


async def move(session: GuestSession, source: str, destination: str, *, overwrite: bool = False) -> FileInfo:
    """Moves a file or directory within the workspace; `overwrite` replaces a file that is there.

    Raises:
        FileError, PathEscapesError: It cannot be moved.
    """
    check_path(source, "source_path")
    check_path(destination, "destination_path")
    operation: dict[str, object] = {"op": "move", "from": source, "to": destination, "overwrite": overwrite}
    return await session.call_for(operation, payloads.file_info)


async def read(session: GuestSession, path: str, offset: int, length: int | None) -> FileReader:
    """Opens a file for reading `length` bytes from `offset`; None: to its end.

    Raises:
        IsolationError: As GuestSession.open.
    """
    check_path(path, "path")
    operation: dict[str, object] = {"op": "read", "path": path, "offset": min(offset, _MAX_OFFSET)}
    if length is not None:
        operation["length"] = min(length, _MAX_OFFSET)
    return FileReader(session, await session.open(operation))


class FileReader:
    """A file's content on its way out. Left early, it stops the guest."""

    def __init__(self, session: GuestSession, channel: Channel) -> None:
        self._session = session
        self._channel = channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.abandon()

    async def info(self) -> FileInfo:
        """Returns the file as it was opened; to be asked first, once.

        Raises:
            FileError, PathEscapesError: It is not there, is no regular file, or may not be read.
        """
        try:
            kind, _, value, _ = await self._channel.receive()
            if kind is FrameType.ERROR:
                with _escape_named("path"):
                    raise guest_error(value)
            if kind is not FrameType.EVENT:
                raise ProtocolError("a file that does not begin with its entry")
            return payloads.file_info(value)
        except (LinkLostError, ProtocolError) as error:
            await self._session.raise_lost(error)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the content in order.

        Raises:
            FileError: It could not be read to its end.
        """
        try:
            while True:
                kind, data, value, _ = await self._channel.receive()
                if kind is FrameType.DATA:
                    yield bytes(data)
                elif kind is FrameType.ERROR:
                    raise guest_error(value)
                elif kind is FrameType.RESULT:
                    return
        except (LinkLostError, ProtocolError) as error:
            await self._session.raise_lost(error)


async def write(session: GuestSession, path: str, mode: int | None) -> FileWriter:
    """Opens a file for writing. It takes its name's place only when FileWriter.finish is called.

    Raises:
        IsolationError: As GuestSession.open.
    """
    check_path(path, "path")
    operation: dict[str, object] = {"op": "write", "path": path}
    if mode is not None:
        _check_mode(mode)
        operation["mode"] = mode
    return FileWriter(session, await session.open(operation))


class FileWriter:
    """A file's content on its way in. Left without `finish`, nothing has changed."""

    def __init__(self, session: GuestSession, channel: Channel) -> None:
        self._session = session
        self._channel = channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.abandon()

    async def write(self, data: bytes) -> None:
        """Sends the next bytes as fast as the guest takes them.

        Raises:
            FileError, PathEscapesError: The file cannot be written.
        """
        if not await self._channel.send(data):
            await self._result()
            raise UnavailableError("the guest ended the upload early")

    async def finish(self) -> FileInfo:
        """Puts the complete file in its place and returns it as it is now.

        Raises:
            FileError, PathEscapesError: The file cannot be written.
        """
        self._channel.finish()
        return await self._result()

    async def _result(self) -> FileInfo:
        try:
            while True:
                kind, _, value, _ = await self._channel.receive()
                if kind is FrameType.RESULT:
                    return payloads.file_info(value)
                if kind is FrameType.ERROR:
                    with _escape_named("path"):
                        raise guest_error(value)
        except (LinkLostError, ProtocolError) as error:
            await self._session.raise_lost(error)


@contextlib.contextmanager
def _escape_named(field: str) -> Iterator[None]:
    """Names the field whose path leads out of the workspace: the guest does not know the contract's names."""
    try:
        yield
    except PathEscapesError as error:
        raise PathEscapesError(error.message, field=field) from error


def _check_mode(mode: int) -> None:
    if not 0 <= mode <= 0o777:
        raise refuse("mode", f"0o{mode:o} is not from 0 to 0o777")


def _page(value: dict[str, object]) -> tuple[list[FileInfo], str]:
    entries = value.get("entries")
    if not isinstance(entries, list) or len(entries) > MAX_PAGE:
        raise ProtocolError("malformed directory page from the guest")
    files = [payloads.file_info(entry) for entry in entries]
    return files, files[-1].name if files and payloads.member(value, "more", bool) else ""
