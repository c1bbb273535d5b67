"""Files of one workspace over a connection. What may be done twice is done again when the connection breaks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from agentic_isolation import _convert as convert
from agentic_isolation._connection import Connection
from agentic_isolation._retry import persevere
from agentic_isolation._wire import check_text, check_unsigned
from agentic_isolation.errors import WorkspaceFileNotFoundError
from agentic_isolation.models import FileInfo
from agentic_isolation.v1 import workspace_pb2 as pb

_UPLOAD_CHUNK = 256 << 10


class Files:
    """Reads and writes files in a workspace; every method is as AgenticWorkspace's.

    Args:
        connection: To its service.
        workspace_id: Its id.
    """

    def __init__(self, connection: Connection, workspace_id: str) -> None:
        self._connection = connection
        self._stub = connection.stub
        self._workspace_id = workspace_id

    async def write(self, path: str, data: bytes, mode: int | None) -> FileInfo:
        """Writes a file."""
        header = pb.WriteFileHeader(
            workspace_id=self._workspace_id, path=check_text(path, "path"), mode=check_unsigned(mode, "mode", bits=32)
        )

        async def requests() -> AsyncIterator[pb.WriteFileRequest]:
            yield pb.WriteFileRequest(header=header)
            for start in range(0, len(data), _UPLOAD_CHUNK):
                yield pb.WriteFileRequest(data=data[start : start + _UPLOAD_CHUNK])
            yield pb.WriteFileRequest(end=pb.WriteFileEnd())

        connection = self._connection
        patience = connection.patience()
        response = await persevere(lambda: connection.attempt(self._stub.WriteFile, requests(), patience), patience)
        return convert.file_from_pb(response.file)

    async def read(self, path: str) -> bytes:
        """Returns a file's content."""
        request = pb.ReadFileRequest(workspace_id=self._workspace_id, path=check_text(path, "path"))

        async def attempt() -> bytes:
            content = bytearray()
            async with contextlib.aclosing(self._connection.stream(self._stub.ReadFile, request)) as responses:
                async for response in responses:
                    content += response.data
            return bytes(content)

        return await persevere(attempt, self._connection.patience())

    async def stat(self, path: str) -> FileInfo:
        """Describes a file or directory."""
        request = pb.StatFileRequest(workspace_id=self._workspace_id, path=check_text(path, "path"))
        return convert.file_from_pb((await self._connection.call(self._stub.StatFile, request)).file)

    async def list(self, path: str) -> list[FileInfo]:
        """Returns a directory's entries."""
        request = pb.ListDirectoryRequest(workspace_id=self._workspace_id, path=check_text(path, "path"))
        files: list[FileInfo] = []
        while True:
            page = await self._connection.call(self._stub.ListDirectory, request)
            files += [convert.file_from_pb(file) for file in page.files]
            if not page.next_page_token:
                return files
            request.page_token = page.next_page_token

    async def make_directory(self, path: str, *, parents: bool) -> FileInfo:
        """Makes a directory."""
        path = check_text(path, "path")
        request = pb.MakeDirectoryRequest(workspace_id=self._workspace_id, path=path, parents=parents)
        # Without parents a repeat would find what the attempt before has made.
        call = self._connection.call if parents else self._connection.once
        return convert.file_from_pb((await call(self._stub.MakeDirectory, request)).file)

    async def remove(self, path: str, *, recursive: bool) -> None:
        """Removes a file or directory."""
        path = check_text(path, "path")
        request = pb.RemoveFileRequest(workspace_id=self._workspace_id, path=path, recursive=recursive)
        await self._connection.call(self._stub.RemoveFile, request, done=WorkspaceFileNotFoundError)
