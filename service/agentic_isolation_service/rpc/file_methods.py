"""WorkspaceService's methods for files: each unpacks its request, asks the core, packs the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio

from agentic_isolation import _convert as convert
from agentic_isolation import _convert_files as file_convert
from agentic_isolation.errors import ContentMismatchError, InvalidArgumentError
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
from agentic_isolation_service.core import archives, files, validation
from agentic_isolation_service.core.watching import Watch
from agentic_isolation_service.core.workspace import HeldWorkspace
from agentic_isolation_service.guest.session import GuestSession
from agentic_isolation_service.rpc.keepalive import keepalive_of

_Context = grpc.aio.ServicerContext[Any, Any]
_UPLOAD_ORDER = "the first message must be the header, the last one the end, and all between data"


class FileMethods(pb_grpc.WorkspaceServiceServicer):
    """The methods for files of the workspaces that `find` returns by their ids."""

    def __init__(self, find: Callable[[str], HeldWorkspace]) -> None:
        self._find = find

    async def WriteFile(
        self, request_iterator: AsyncIterator[pb.WriteFileRequest], context: _Context
    ) -> pb.WriteFileResponse:
        """Writes a file."""
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("content") != "header":
            raise InvalidArgumentError(_UPLOAD_ORDER, field="header")
        header = first.header
        mode = header.mode if header.HasField("mode") else None
        size = 0
        async with await files.write(
            self._session(header.workspace_id), header.path, mode, digest=header.digest
        ) as upload:
            async for request in request_iterator:
                match request.WhichOneof("content"):
                    case "data":
                        size += len(request.data)
                        await upload.write(request.data)
                    case "end":
                        expected = _expected(request.end, header, size)
                        file, sha256 = await upload.finish(expected)
                        return pb.WriteFileResponse(file=convert.file_to_pb(file), sha256=sha256)
                    case _:
                        break
        raise InvalidArgumentError(_UPLOAD_ORDER, field="content")

    async def ReadFile(self, request: pb.ReadFileRequest, context: _Context) -> AsyncIterator[pb.ReadFileResponse]:
        """Reads a file."""
        session = self._session(request.workspace_id)
        length = request.length_bytes if request.HasField("length_bytes") else None
        async with await files.read(
            session, request.path, request.offset_bytes, length, digest=request.digest
        ) as download:
            yield pb.ReadFileResponse(file=convert.file_to_pb(await download.begin()))
            async for data in download.chunks():
                yield pb.ReadFileResponse(data=data)
            content = download.result
            yield pb.ReadFileResponse(end=pb.ReadFileEnd(size_bytes=content.size_bytes, sha256=content.sha256))

    async def StatFile(self, request: pb.StatFileRequest, context: _Context) -> pb.StatFileResponse:
        """Describes a file."""
        file = await files.stat(self._session(request.workspace_id), request.path, follow=not request.no_follow)
        return pb.StatFileResponse(file=convert.file_to_pb(file))

    async def ListDirectory(self, request: pb.ListDirectoryRequest, context: _Context) -> pb.ListDirectoryResponse:
        """Lists a directory."""
        limit = request.page_size or files.MAX_PAGE
        session = self._session(request.workspace_id)
        entries, token = await files.list_directory(
            session, request.path or ".", limit, request.page_token, depth=request.depth or 1
        )
        return pb.ListDirectoryResponse(files=[convert.file_to_pb(entry) for entry in entries], next_page_token=token)

    async def MakeDirectory(self, request: pb.MakeDirectoryRequest, context: _Context) -> pb.MakeDirectoryResponse:
        """Makes a directory."""
        mode = request.mode if request.HasField("mode") else 0o755
        session = self._session(request.workspace_id)
        file = await files.make_directory(session, request.path, mode=mode, parents=request.parents)
        return pb.MakeDirectoryResponse(file=convert.file_to_pb(file))

    async def MoveFile(self, request: pb.MoveFileRequest, context: _Context) -> pb.MoveFileResponse:
        """Moves a file."""
        session = self._session(request.workspace_id)
        file = await files.move(session, request.source_path, request.destination_path, overwrite=request.overwrite)
        return pb.MoveFileResponse(file=convert.file_to_pb(file))

    async def CopyFile(self, request: pb.CopyFileRequest, context: _Context) -> pb.CopyFileResponse:
        """Copies a file or directory."""
        file = await files.copy(
            self._session(request.workspace_id),
            request.source_path,
            request.destination_path,
            overwrite=request.overwrite,
            recursive=request.recursive,
        )
        return pb.CopyFileResponse(file=convert.file_to_pb(file))

    async def ChangeFileMode(self, request: pb.ChangeFileModeRequest, context: _Context) -> pb.ChangeFileModeResponse:
        """Sets permission bits."""
        if not request.HasField("mode"):
            raise validation.refuse("mode", "name the permission bits, for example 0o755")
        file = await files.change_mode(self._session(request.workspace_id), request.path, request.mode)
        return pb.ChangeFileModeResponse(file=convert.file_to_pb(file))

    async def WriteArchive(
        self, request_iterator: AsyncIterator[pb.WriteArchiveRequest], context: _Context
    ) -> pb.WriteArchiveResponse:
        """Unpacks a tar stream."""
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("content") != "header":
            raise InvalidArgumentError(_UPLOAD_ORDER, field="header")
        session = self._session(first.header.workspace_id)
        async with await archives.unpack(session, first.header.path or ".") as upload:
            async for request in request_iterator:
                match request.WhichOneof("content"):
                    case "data":
                        await upload.write(request.data)
                    case "end":
                        return pb.WriteArchiveResponse(summary=file_convert.summary_to_pb(await upload.finish()))
                    case _:
                        break
        raise InvalidArgumentError(_UPLOAD_ORDER, field="content")

    async def ReadArchive(
        self, request: pb.ReadArchiveRequest, context: _Context
    ) -> AsyncIterator[pb.ReadArchiveResponse]:
        """Packs a directory into a tar stream."""
        session = self._session(request.workspace_id)
        async with await archives.pack(session, request.path or ".", list(request.ignore_patterns)) as download:
            yield pb.ReadArchiveResponse(directory=convert.file_to_pb(await download.begin()))
            async for data in download.chunks():
                yield pb.ReadArchiveResponse(data=data)
            summary = file_convert.summary_to_pb(download.result)
            yield pb.ReadArchiveResponse(end=pb.ReadArchiveEnd(summary=summary))

    async def WatchDirectory(
        self, request: pb.WatchDirectoryRequest, context: _Context
    ) -> AsyncIterator[pb.WatchDirectoryResponse]:
        """Tells what changes in a directory."""
        keepalive = keepalive_of(request)
        session = self._session(request.workspace_id)
        async with await Watch.open(session, request.path or ".", recursive=request.recursive) as watch:
            while event := await watch.next(keepalive):
                yield file_convert.watch_event_to_pb(event)

    async def RemoveFile(self, request: pb.RemoveFileRequest, context: _Context) -> pb.RemoveFileResponse:
        """Removes a file."""
        await files.remove(self._session(request.workspace_id), request.path, recursive=request.recursive)
        return pb.RemoveFileResponse()

    def _session(self, workspace_id: str) -> GuestSession:
        return self._find(workspace_id).session


def _expected(end: pb.WriteFileEnd, header: pb.WriteFileHeader, size: int) -> dict[str, object] | None:
    """Returns what the guest is to compare a file with that has come in `size` bytes; None: nothing.

    Raises:
        ContentMismatchError: It is not complete.
        InvalidArgumentError: It cannot be compared.
    """
    if end.HasField("size_bytes") and end.size_bytes != size:
        raise ContentMismatchError(f"{size} bytes have arrived, not {end.size_bytes}; send it again")
    if not end.sha256:
        return None
    if not header.digest:
        raise validation.refuse("end.sha256", "set header.digest, so that there is something to compare it with")
    if len(end.sha256) != 32:
        raise validation.refuse("end.sha256", f"{len(end.sha256)} bytes are no SHA-256, which has 32")
    return {"bytes": size, "sha256": end.sha256.hex()}
