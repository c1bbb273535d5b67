"""Files and directories on their way between this machine and a workspace, with bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from agentic_isolation import _local_files as local_files
from agentic_isolation import _tar as tar
from agentic_isolation._connection import Connection
from agentic_isolation._ignore import IgnoreRules
from agentic_isolation._local_files import Source, Target
from agentic_isolation._pipe import PipeAbortedError, ThreadPipe
from agentic_isolation._retry import persevere
from agentic_isolation._threads import in_own_thread, in_thread, opened_in_thread
from agentic_isolation._wire import check_series, check_text, wrong_type
from agentic_isolation.errors import ContentMismatchError, FileError, InvalidArgumentError, UnavailableError
from agentic_isolation.transfer import TransferProgress, TransferSummary
from agentic_isolation.v1 import workspace_pb2 as pb

_T = TypeVar("_T")
Progress = Callable[[TransferProgress], object]
_CHUNK = 512 << 10
"""Bytes of one message, and of one visit to a thread."""
_NEWS = 0.05
"""Seconds between two reports of progress."""


class Transfers:
    """Moves files and directories; every method is as AgenticWorkspace's.

    Args:
        connection: To the service.
        workspace_id: The workspace.
    """

    def __init__(self, connection: Connection, workspace_id: str) -> None:
        self._connection = connection
        self._workspace_id = workspace_id

    async def upload(
        self, local: str | os.PathLike[str], remote: str | None, ignore: Sequence[str], progress: Progress | None
    ) -> TransferSummary:
        """Copies a file or directory into the workspace."""
        _check_progress(progress)
        patterns = _patterns(ignore)
        source = Path(await in_thread(os.path.realpath, _path_of(local)))  # Path.resolve has its own error for loops
        target = check_text(source.name if remote is None else remote, "remote")
        if await in_thread(source.is_dir):
            return await self._upload_directory(source, target or ".", IgnoreRules(patterns, "ignore"), progress)
        _refuse_patterns(patterns)
        target = target + source.name if target.endswith("/") else target
        return await self._upload_file(source, target, progress)

    async def download(
        self, remote: str, local: str | os.PathLike[str] | None, ignore: Sequence[str], progress: Progress | None
    ) -> TransferSummary:
        """Copies a file or directory out of the workspace."""
        _check_progress(progress)
        patterns = _patterns(ignore)
        request = pb.StatFileRequest(workspace_id=self._workspace_id, path=check_text(remote, "remote"))
        file = (await self._connection.call(self._connection.stub.StatFile, request)).file
        target = _path_of(_name_of(remote, file.path) if local is None else local)
        if file.type == pb.FILE_TYPE_DIRECTORY:
            return await self._download_directory(remote, target, patterns, progress)
        _refuse_patterns(patterns)
        if await in_thread(target.is_dir):
            target /= _name_of(remote, file.path)
        return await self._download_file(remote, target, progress)

    async def _upload_file(self, source: Path, path: str, progress: Progress | None) -> TransferSummary:
        header = pb.WriteFileHeader(workspace_id=self._workspace_id, path=path, digest=True)

        async def attempt() -> TransferSummary:
            file = await opened_in_thread(Source, source)
            header.mode = file.mode
            news = _News(progress, file.size)

            async def content() -> AsyncIterator[pb.WriteFileRequest]:
                yield pb.WriteFileRequest(header=header)
                while data := await in_thread(file.read, _CHUNK):
                    yield pb.WriteFileRequest(data=data)
                    news.tell(file.done, str(source))
                if file.done < file.size:  # what is in /proc has no size, and content all the same
                    raise FileError(f"{source} became shorter while it was read; try again")
                end = pb.WriteFileEnd(size_bytes=file.done, sha256=file.sha256())
                yield pb.WriteFileRequest(end=end)

            try:
                await self._send(self._connection.stub.WriteFile, content(), header)
            finally:
                await in_thread(file.close)
            news.conclude(file.done, str(source))
            return _of_file(file.done)

        return await self._persevere(attempt)

    async def _upload_directory(
        self, source: Path, path: str, ignored: IgnoreRules, progress: Progress | None
    ) -> TransferSummary:
        header = pb.WriteArchiveHeader(workspace_id=self._workspace_id, path=path)
        total = None if progress is None else await in_thread(tar.content_size, str(source), ignored)

        async def attempt() -> TransferSummary:
            tally, news = tar.Tally(), _News(progress, total)
            pieces = tar.pack(str(source), ignored, tally)

            async def content() -> AsyncIterator[pb.WriteArchiveRequest]:
                with contextlib.closing(pieces):
                    yield pb.WriteArchiveRequest(header=header)
                    while data := await in_thread(next, pieces, b""):
                        yield pb.WriteArchiveRequest(data=data)
                        news.tell(tally.content_bytes, tally.path)
                    yield pb.WriteArchiveRequest(end=pb.WriteArchiveEnd())

            await self._send(self._connection.stub.WriteArchive, content(), header)
            news.conclude(tally.content_bytes, tally.path)
            return _summary(tally)

        return await self._persevere(attempt)

    async def _download_file(self, path: str, target: Path, progress: Progress | None) -> TransferSummary:
        request = pb.ReadFileRequest(workspace_id=self._workspace_id, path=path, digest=True)

        async def attempt() -> TransferSummary:
            async with _writing(target) as file:
                async with self._reading(self._connection.stub.ReadFile, request) as responses:
                    opened = (await anext(responses)).file
                    news = _News(progress, opened.size_bytes)
                    async for response in responses:
                        if response.WhichOneof("content") == "end":
                            break
                        if file.put(response.data):
                            await in_thread(file.flush)
                        news.tell(file.done, path)
                    else:
                        raise UnavailableError(f"the content of {path!r} ended early")
                await in_thread(file.flush)
                if (file.done, file.sha256()) != (response.end.size_bytes, response.end.sha256):
                    raise ContentMismatchError(f"what has come of {path!r} is not what was sent; read it again")
                await in_thread(file.commit, opened.mode)
            news.conclude(file.done, path)
            return _of_file(file.done)

        return await self._persevere(attempt)

    async def _download_directory(
        self, path: str, target: Path, ignore: list[str], progress: Progress | None
    ) -> TransferSummary:
        request = pb.ReadArchiveRequest(workspace_id=self._workspace_id, path=path)
        request.ignore_patterns.extend(ignore)

        async def attempt() -> TransferSummary:
            tally, news, pipe = tar.Tally(), _News(progress, None), ThreadPipe()
            reader = tar.TarReader(pipe.read)

            def unpack() -> None:
                try:
                    local_files.unpack(str(target), reader, tally)
                finally:
                    pipe.leave()

            unpacking = asyncio.ensure_future(in_own_thread(unpack))
            skipped = 0
            try:
                async with self._reading(self._connection.stub.ReadArchive, request) as responses:
                    async for response in responses:
                        match response.WhichOneof("content"):
                            case "data":
                                if not await pipe.write(response.data):
                                    break
                                news.tell(tally.content_bytes, tally.path)
                            case "end":
                                skipped = response.end.summary.skipped_count
                                pipe.end()
                                break
                    else:
                        raise UnavailableError(f"the content of {path!r} ended early")
                await asyncio.shield(unpacking)  # it must be told before it is waited for
            finally:
                pipe.end(aborted=True)
                with contextlib.suppress(PipeAbortedError):
                    await unpacking
            tally.skipped += skipped
            news.conclude(tally.content_bytes, tally.path)
            return _summary(tally)

        return await self._persevere(attempt)

    async def _persevere(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        return await persevere(attempt, self._connection.patience())

    async def _send(self, method: Callable[..., Any], content: AsyncIterator[Any], header: Any) -> Any:
        return await self._connection.attempt(method, content, self._connection.patience(), head=header)

    @contextlib.asynccontextmanager
    async def _reading(self, method: Callable[..., Any], request: Any) -> AsyncIterator[AsyncIterator[Any]]:
        async with contextlib.aclosing(self._connection.stream(method, request)) as responses:
            yield responses


class _News:
    """Tells how far a transfer is, not too often.

    Args:
        progress: Whom; None: nobody.
        total: Bytes of content in all, where that is known.
    """

    def __init__(self, progress: Progress | None, total: int | None) -> None:
        self._progress = progress
        self._total = total
        self._next = 0.0

    def tell(self, done: int, path: str) -> None:
        """Tells it unless it was told just now."""
        now = asyncio.get_running_loop().time()
        if self._progress is not None and now >= self._next:
            self._next = now + _NEWS
            self._progress(TransferProgress(done, self._total, path))

    def conclude(self, done: int, path: str) -> None:
        """Tells that it is complete."""
        if self._progress is not None:
            self._progress(TransferProgress(done, done, path))


@contextlib.asynccontextmanager
async def _writing(target: Path) -> AsyncIterator[Target]:
    file = await opened_in_thread(Target, target)
    try:
        yield file
    finally:
        await in_thread(file.close)


def _of_file(size: int) -> TransferSummary:
    return TransferSummary(files=1, directories=0, symlinks=0, skipped=0, content_bytes=size)


def _summary(tally: tar.Tally) -> TransferSummary:
    return TransferSummary(
        files=tally.files,
        directories=tally.directories,
        symlinks=tally.symlinks,
        skipped=tally.skipped,
        content_bytes=tally.content_bytes,
    )


def _path_of(local: str | os.PathLike[str]) -> Path:
    """Returns a path of this machine. Raises InvalidArgumentError where it can be none."""
    try:
        # Nothing would be the current directory to pathlib: all that lies there, where a variable is not set.
        if (encoded := os.fsencode(local)) and b"\0" not in encoded:
            return Path(local)
    except (TypeError, UnicodeEncodeError):
        pass
    raise InvalidArgumentError(f"{local!r:.100} is no path; give str or a pathlib.Path", field="local")


def _name_of(remote: str, path: str) -> str:
    """Returns the name that a download has on this machine, which is never more than a name, whatever is told there.

    Args:
        remote: The path as it was asked for.
        path: The path as the workspace says.

    Raises:
        InvalidArgumentError: Neither has a name.
    """
    for candidate in (remote, path):
        name = posixpath.basename(posixpath.normpath(candidate))
        if name not in ("", ".", "..") and "\0" not in name:
            return name
    raise InvalidArgumentError(f"{remote!r} has no name of its own; say where it goes", field="local")


def _check_progress(progress: Progress | None) -> None:
    if progress is not None and not callable(progress):
        raise wrong_type(progress, "progress", "a function of a TransferProgress")


def _patterns(ignore: Sequence[str]) -> list[str]:
    """Returns the patterns of `ignore`.

    Raises:
        InvalidArgumentError: It is a single string, whose characters would be the patterns, or no text.
    """
    patterns = enumerate(check_series(ignore, "ignore"))
    return [check_text(pattern, f"ignore[{position}]") for position, pattern in patterns]


def _refuse_patterns(patterns: Sequence[str]) -> None:
    if patterns:
        raise InvalidArgumentError("only directories have something to leave out; leave it out", field="ignore")
