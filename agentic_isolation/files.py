"""Files: what lies in a workspace. What may be done twice is done again when the connection breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Self

from agentic_isolation import _convert as convert
from agentic_isolation import _convert_files as file_convert
from agentic_isolation._cleanup import finish
from agentic_isolation._connection import Connection
from agentic_isolation._loops import same_loop
from agentic_isolation._retry import PASSING, persevere
from agentic_isolation._wire import check_bytes, check_text, check_type, check_unsigned
from agentic_isolation.changes import FileChange, WatchEvent, WatchOverflow, WatchStarted
from agentic_isolation.errors import ClosedError, UnavailableError, WorkspaceFileNotFoundError
from agentic_isolation.models import FileInfo
from agentic_isolation.v1 import workspace_pb2 as pb

__all__ = ["FileWatch", "Files"]

_UPLOAD_CHUNK = 256 << 10


class Files:
    """The files of a workspace. Paths are absolute, or relative to its working_dir; none leads out of the workspace.

    That is its container, as far as its user may; with the local provider it is the working_dir.

    Every method raises PathEscapesError for a path that does, and FileError, of the class that fits, for what the file
    system refuses.

    Args:
        connection: To its service.
        workspace_id: Its id.
    """

    def __init__(self, connection: Connection, workspace_id: str) -> None:
        self._connection = connection
        self._stub = connection.stub
        self._workspace_id = workspace_id

    async def write(
        self, path: str, content: str | bytes | bytearray | memoryview, *, mode: int | None = None
    ) -> FileInfo:
        """Writes a file atomically: readers see the old content or the whole of the new. Missing parents are made.

        Args:
            path: Where.
            content: Bytes, or text that is written as UTF-8.
            mode: Permission bits; None: those of the file that is replaced, else 0o644.
        """
        data = check_bytes(content, "content")
        header = pb.WriteFileHeader(
            workspace_id=self._workspace_id, path=check_text(path, "path"), mode=check_unsigned(mode, "mode", bits=32)
        )

        async def requests() -> AsyncIterator[pb.WriteFileRequest]:
            yield pb.WriteFileRequest(header=header)
            for start in range(0, len(data), _UPLOAD_CHUNK):
                yield pb.WriteFileRequest(data=data[start : start + _UPLOAD_CHUNK])
            yield pb.WriteFileRequest(end=pb.WriteFileEnd(size_bytes=len(data)))

        connection = self._connection
        patience = connection.patience()
        response = await persevere(
            lambda: connection.attempt(self._stub.WriteFile, requests(), patience, head=header), patience
        )
        return convert.file_from_pb(response.file)

    async def read(self, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Returns a file's content, from a byte on and so many bytes at most; None: to its end."""
        request = pb.ReadFileRequest(
            workspace_id=self._workspace_id,
            path=check_text(path, "path"),
            offset_bytes=check_unsigned(offset, "offset", bits=64) or 0,
            length_bytes=check_unsigned(length, "length", bits=64),
        )

        async def attempt() -> bytes:
            content = bytearray()
            async with contextlib.aclosing(self._connection.stream(self._stub.ReadFile, request)) as responses:
                async for response in responses:
                    content += response.data
                    if response.WhichOneof("content") == "end":
                        return bytes(content)
            raise UnavailableError(f"the content of {path!r} ended early")

        return await persevere(attempt, self._connection.patience())

    async def exists(self, path: str) -> bool:
        """Returns whether anything has that path."""
        try:
            await self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        """Describes a file or directory; `follow`: what a symlink points to in place of the symlink."""
        request = pb.StatFileRequest(
            workspace_id=self._workspace_id, path=check_text(path, "path"), no_follow=not follow
        )
        return convert.file_from_pb((await self._connection.call(self._stub.StatFile, request)).file)

    async def list(self, path: str = ".", *, depth: int = 1) -> list[FileInfo]:
        """Returns a directory's entries, sorted by name.

        Args:
            path: The directory.
            depth: How many levels, 1 to 1,000; each directory is followed by what lies in it. Symlinks are not
                followed.
        """
        return [file async for file in self.iterate(path, depth=depth)]

    async def iterate(self, path: str = ".", *, depth: int = 1) -> AsyncGenerator[FileInfo, None]:
        """Yields a directory's entries as `list` returns them, page by page: for trees of any size."""
        request = pb.ListDirectoryRequest(
            workspace_id=self._workspace_id,
            path=check_text(path, "path"),
            depth=check_unsigned(depth, "depth", bits=32, least=1) or 0,
        )
        while True:
            page = await self._connection.call(self._stub.ListDirectory, request)
            for file in page.files:
                yield convert.file_from_pb(file)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def make_directory(self, path: str, *, mode: int | None = None, parents: bool = True) -> FileInfo:
        """Makes a directory.

        Args:
            path: Where.
            mode: Permission bits; None: 0o755.
            parents: Make missing parents, and be content with a directory that is there.
        """
        request = pb.MakeDirectoryRequest(
            workspace_id=self._workspace_id,
            path=check_text(path, "path"),
            mode=check_unsigned(mode, "mode", bits=32),
            parents=check_type(parents, "parents", bool),
        )
        # Without parents a repeat would find what the attempt before has made.
        call = self._connection.call if parents else self._connection.once
        return convert.file_from_pb((await call(self._stub.MakeDirectory, request)).file)

    async def move(self, source: str, destination: str, *, overwrite: bool = False) -> FileInfo:
        """Moves a file or directory, atomically; `overwrite` replaces a file that is there.

        In a container the working_dir, /tmp and /home/agent are file systems of their own: copy and remove instead.
        """
        request = pb.MoveFileRequest(
            workspace_id=self._workspace_id,
            source_path=check_text(source, "source_path"),
            destination_path=check_text(destination, "destination_path"),
            overwrite=check_type(overwrite, "overwrite", bool),
        )
        return convert.file_from_pb((await self._connection.once(self._stub.MoveFile, request)).file)

    async def copy(
        self, source: str, destination: str, *, overwrite: bool = False, recursive: bool = False
    ) -> FileInfo:
        """Copies a file, a symlink itself, or a directory, which appears as a whole or not at all.

        Args:
            source: What to copy.
            destination: The path of the copy.
            overwrite: Replace a file that is there.
            recursive: Copy a directory with all that it holds.
        """
        request = pb.CopyFileRequest(
            workspace_id=self._workspace_id,
            source_path=check_text(source, "source_path"),
            destination_path=check_text(destination, "destination_path"),
            overwrite=check_type(overwrite, "overwrite", bool),
            recursive=check_type(recursive, "recursive", bool),
        )
        return convert.file_from_pb((await self._connection.once(self._stub.CopyFile, request)).file)

    async def chmod(self, path: str, mode: int) -> FileInfo:
        """Sets permission bits, 0 to 0o777; a symlink stands for what it points to."""
        request = pb.ChangeFileModeRequest(
            workspace_id=self._workspace_id,
            path=check_text(path, "path"),
            mode=check_unsigned(mode, "mode", bits=32),
        )
        return convert.file_from_pb((await self._connection.call(self._stub.ChangeFileMode, request)).file)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Removes a file, a symlink itself, or a directory; `recursive` with all that it holds."""
        path = check_text(path, "path")
        request = pb.RemoveFileRequest(
            workspace_id=self._workspace_id, path=path, recursive=check_type(recursive, "recursive", bool)
        )
        await self._connection.call(self._stub.RemoveFile, request, done=WorkspaceFileNotFoundError)

    def watch(self, path: str = ".", *, recursive: bool = True) -> FileWatch:
        """Watches a directory for changes; enter the result, then iterate over it.

        Args:
            path: The directory.
            recursive: Also all directories below it, those to come included.
        """
        request = pb.WatchDirectoryRequest(
            workspace_id=self._workspace_id,
            path=check_text(path, "path"),
            recursive=check_type(recursive, "recursive", bool),
        )
        return FileWatch(self._connection, request)


class FileWatch:
    """What changes in a directory. Entered, the watch is in place: all that happens from then on is told.

    Iterate over it for FileChange, and WatchOverflow where changes were missed, also because the connection was broken
    for a while. It ends after the removal of the directory itself.

        async with ws.files.watch("src") as changes:
            async for change in changes:
                print(change)

    A wait for the next change that is cancelled misses nothing: the next one takes it up.

    Args:
        connection: To the service.
        request: What to watch.
    """

    def __init__(self, connection: Connection, request: pb.WatchDirectoryRequest) -> None:
        self._connection = connection
        self._request = request
        self._patience = connection.patience()
        self._call: AsyncGenerator[pb.WatchDirectoryResponse, None] | None = None
        self._reading: asyncio.Task[pb.WatchDirectoryResponse | None] | None = None
        """Waits for the next response, whoever has given up waiting for it."""
        self._entered = False
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        """Begins to watch.

        Raises:
            WatchLimitError: The kernel allows no more watches.
            FileError, PathEscapesError: It is no directory, or leads out of the workspace.
        """
        try:
            while not isinstance(await self._next(), WatchStarted):
                pass
        except BaseException:
            await self.aclose()
            raise
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FileChange | WatchOverflow:
        if not self._entered and not self._ended:
            raise ClosedError("the watch is not open; use `async with`")
        while (event := await self._next()) is not None:
            if isinstance(event, WatchStarted):
                return WatchOverflow()  # it was begun anew
            return event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends the watch. May be called twice; goes on when cancelled."""
        if self._loop is not None:
            same_loop(self._loop)
        self._ended = True
        await finish(self._leave())

    async def _leave(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._call is not None:
            await self._call.aclose()

    async def _next(self) -> WatchEvent | None:
        """Waits for the next event, of as many calls as it takes; None when the watch is over."""
        self._loop = same_loop(self._loop)
        while not self._ended:
            try:
                response = await self._read()
            except PASSING as error:
                self._call = None
                await self._patience.wait(error)
                continue
            self._patience.renew()
            if response is None:
                self._ended = True
            elif (event := file_convert.watch_event_from_pb(response)) is not None:
                return event
        return None

    async def _read(self) -> pb.WatchDirectoryResponse | None:
        """Waits for the next response; None at the end of the call, or of the watch."""
        if self._call is None:
            self._call = self._connection.stream(self._connection.stub.WatchDirectory, self._request)
        if self._reading is None:
            self._reading = asyncio.create_task(_next_of(self._call), name="file-watch")
        reading = self._reading
        await asyncio.wait([reading])
        self._reading = None
        return None if self._ended else reading.result()


async def _next_of(
    responses: AsyncGenerator[pb.WatchDirectoryResponse, None],
) -> pb.WatchDirectoryResponse | None:
    return await anext(responses, None)
