"""Files on the wire: uploads that are cut, parts of a file, pages of a directory, moving."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import Refusal, Stub, call, host_file, host_files, refused, shell
from tests.support.eventually import eventually

CHUNK = bytes(64 << 10)


def header(workspace: pb.Workspace, path: str, mode: int | None = None) -> pb.WriteFileRequest:
    return pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id=workspace.workspace_id, path=path, mode=mode))


def data(content: bytes) -> pb.WriteFileRequest:
    return pb.WriteFileRequest(data=content)


END = pb.WriteFileRequest(end=pb.WriteFileEnd())


async def messages(*requests: pb.WriteFileRequest) -> AsyncIterator[pb.WriteFileRequest]:
    for request in requests:
        yield request


async def write(stub: Stub, workspace: pb.Workspace, path: str, content: bytes, mode: int | None = None) -> pb.FileInfo:
    request = messages(header(workspace, path, mode), data(content), END)
    return (await stub.WriteFile(request)).file


async def read(stub: Stub, workspace: pb.Workspace, path: str, **fields: Any) -> bytes:
    request = pb.ReadFileRequest(workspace_id=workspace.workspace_id, path=path, **fields)
    first, *pieces, last = await call(stub, request)
    assert first.WhichOneof("content") == "file"
    assert all(response.WhichOneof("content") == "data" for response in pieces)
    assert last.WhichOneof("content") == "end"
    return b"".join(response.data for response in pieces)


async def test_file_there_and_back(stub: Stub, workspace: pb.Workspace) -> None:
    file = await write(stub, workspace, "dir/file", b"content", 0o640)
    assert (file.path, file.name, file.type) == ("/workspace/dir/file", "file", pb.FILE_TYPE_FILE)
    assert (file.size_bytes, file.mode) == (7, 0o640)
    assert await read(stub, workspace, "/workspace/dir/file") == b"content"


async def test_upload_of_many_messages_of_any_size(stub: Stub, workspace: pb.Workspace) -> None:
    pieces = [b"", b"a", bytes(1), b"b" * 65_536, b"", b"c" * 65_537, b"d" * (1 << 20)]
    file = (await stub.WriteFile(messages(header(workspace, "file"), *map(data, pieces), END))).file
    assert file.size_bytes == sum(map(len, pieces))
    assert await read(stub, workspace, "file") == b"".join(pieces)


async def test_upload_that_only_stops_changes_nothing(stub: Stub, workspace: pb.Workspace) -> None:
    """The client ends its messages, and has not said that the content is complete."""
    await write(stub, workspace, "file", b"old")
    for upload in ([header(workspace, "file")], [header(workspace, "file"), data(b"new")]):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "content"):
            await stub.WriteFile(messages(*upload))
    assert host_file(workspace, "file").read_bytes() == b"old"
    await eventually(lambda: host_files(workspace) == ["file"], "the temporary files are gone")


@pytest.mark.parametrize("content", [b"garbage " * 1000, b"\0" * 700], ids=["garbage", "cut"])
async def test_what_is_no_archive_is_named(stub: Stub, workspace: pb.Workspace, content: bytes) -> None:
    async def upload() -> AsyncIterator[pb.WriteArchiveRequest]:
        yield pb.WriteArchiveRequest(header=pb.WriteArchiveHeader(workspace_id=workspace.workspace_id))
        yield pb.WriteArchiveRequest(data=content)
        yield pb.WriteArchiveRequest(end=pb.WriteArchiveEnd())

    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_ARCHIVE", "data"):
        await stub.WriteArchive(upload())
    assert host_files(workspace) == []


@pytest.mark.parametrize("name", ["file", "new"])
async def test_upload_that_is_cut_changes_nothing(stub: Stub, workspace: pb.Workspace, name: str) -> None:
    """Cut by the client at any place; a temporary file shows that the upload had begun."""
    await write(stub, workspace, "file", b"old")

    async def endless() -> AsyncIterator[pb.WriteFileRequest]:
        yield header(workspace, name)
        for _ in itertools.repeat(None):
            yield data(CHUNK)

    for _ in range(10):
        upload = stub.WriteFile(endless())
        await eventually(lambda: len(host_files(workspace)) == 2, "the upload is under way")
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        await eventually(lambda: host_files(workspace) == ["file"], "the temporary file is gone")
    assert host_file(workspace, "file").read_bytes() == b"old"


async def test_upload_whose_deadline_passes_changes_nothing(stub: Stub, workspace: pb.Workspace) -> None:
    over = asyncio.Event()

    async def stalling() -> AsyncIterator[pb.WriteFileRequest]:
        yield header(workspace, "file")
        yield data(CHUNK)
        await over.wait()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.WriteFile(stalling(), timeout=0.5)
    over.set()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: host_files(workspace) == [], "nothing of it is left")


async def test_large_upload_that_is_refused_ends_early(stub: Stub, workspace: pb.Workspace) -> None:
    """The service answers although the client has not sent all; the client need not send it into the void."""
    many = messages(header(workspace, "../outside"), *[data(CHUNK)] * 2000, END)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "PATH_ESCAPES", "path"):
        await asyncio.wait_for(stub.WriteFile(many), 20)


@pytest.mark.parametrize(
    ("path", "end", "refusal"),
    [
        ("file", {"size_bytes": 1}, Refusal(grpc.StatusCode.DATA_LOSS, "CONTENT_MISMATCH")),
        ("file", {"sha256": bytes(32)}, Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "end.sha256")),
        ("../file", {}, Refusal(grpc.StatusCode.INVALID_ARGUMENT, "PATH_ESCAPES", "path")),
    ],
    ids=["length", "digest", "path"],
)
async def test_refusal_of_an_upload_that_is_complete_is_told_at_once(
    stub: Stub, workspace: pb.Workspace, path: str, end: dict[str, Any], refusal: Refusal
) -> None:
    """After `end` nothing comes that could cross it, whether or not the client ends its stream of messages."""
    told = asyncio.Event()

    async def complete() -> AsyncIterator[pb.WriteFileRequest]:
        yield header(workspace, path)
        yield data(b"new")
        yield pb.WriteFileRequest(end=pb.WriteFileEnd(**end))
        await told.wait()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(stub.WriteFile(complete()), 8)
    told.set()
    assert Refusal.of(caught.value) == refusal


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({}, slice(None)),
        ({"offset_bytes": 5}, slice(5, None)),
        ({"length_bytes": 5}, slice(0, 5)),
        ({"length_bytes": 0}, slice(0, 0)),
        ({"offset_bytes": 70_000, "length_bytes": 100_000}, slice(70_000, 170_000)),
        ({"offset_bytes": 299_999}, slice(299_999, None)),
        ({"offset_bytes": 300_000}, slice(0, 0)),
        ({"offset_bytes": 1 << 40, "length_bytes": 1}, slice(0, 0)),
        ({"offset_bytes": 299_990, "length_bytes": 1 << 40}, slice(299_990, None)),
    ],
    ids=str,
)
async def test_part_of_a_file(stub: Stub, workspace: pb.Workspace, fields: dict[str, int], part: slice) -> None:
    content = b"".join(b"%09d\n" % number for number in range(30_000))
    host_file(workspace, "file").write_bytes(content)
    assert await read(stub, workspace, "file", **fields) == content[part]


async def test_download_that_is_cut(stub: Stub, workspace: pb.Workspace) -> None:
    await stub.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell("truncate -s 1T endless")))
    for _ in range(10):
        download = stub.ReadFile(pb.ReadFileRequest(workspace_id=workspace.workspace_id, path="endless"))
        async for response in download:
            if response.data:
                break
        download.cancel()
    assert await read(stub, workspace, "endless", length_bytes=10) == bytes(10)


@pytest.mark.parametrize("page_size", [1, 7, 50, 51, 1000])
async def test_directory_in_pages(stub: Stub, workspace: pb.Workspace, page_size: int) -> None:
    names = sorted((f"file {number} ü" for number in range(50)), key=str.encode)
    for name in names:
        host_file(workspace, name).touch()
    request = pb.ListDirectoryRequest(workspace_id=workspace.workspace_id, page_size=page_size)
    seen: list[list[str]] = []
    while not seen or request.page_token:
        (page,) = await call(stub, request)
        seen.append([file.name for file in page.files])
        request.page_token = page.next_page_token
    assert list(itertools.chain(*seen)) == names
    assert all(len(page) == page_size for page in seen[:-1])
    assert len(seen) == -(-50 // page_size)


async def test_page_goes_on_where_the_last_one_ended_whatever_has_changed(stub: Stub, workspace: pb.Workspace) -> None:
    for name in "abcdef":
        host_file(workspace, name).touch()
    request = pb.ListDirectoryRequest(workspace_id=workspace.workspace_id, page_size=3)
    (first,) = await call(stub, request)
    host_file(workspace, "c").unlink()
    host_file(workspace, "aa").touch()
    request.page_token = first.next_page_token
    (second,) = await call(stub, request)
    assert [file.name for file in second.files] == ["d", "e", "f"]
    assert second.next_page_token == ""
    request.depth = 2
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "page_token"):
        await call(stub, request)


async def move(stub: Stub, workspace: pb.Workspace, source: str, destination: str, *, overwrite: bool = False) -> str:
    request = pb.MoveFileRequest(
        workspace_id=workspace.workspace_id, source_path=source, destination_path=destination, overwrite=overwrite
    )
    return (await stub.MoveFile(request)).file.path


async def test_move(stub: Stub, workspace: pb.Workspace) -> None:
    host_file(workspace, "dir").mkdir()
    host_file(workspace, "file").write_text("moved")
    assert await move(stub, workspace, "file", "dir/new name") == "/workspace/dir/new name"
    assert await move(stub, workspace, "dir", "other") == "/workspace/other"
    assert host_files(workspace) == ["other", "other/new name"]
    assert await read(stub, workspace, "other/new name") == b"moved"


async def test_move_onto_what_is_there(stub: Stub, workspace: pb.Workspace) -> None:
    host_file(workspace, "one").write_text("one")
    host_file(workspace, "two").write_text("two")
    with refused(grpc.StatusCode.ALREADY_EXISTS, "FILE_EXISTS"):
        await move(stub, workspace, "one", "two")
    assert host_file(workspace, "two").read_text() == "two"
    await move(stub, workspace, "one", "two", overwrite=True)
    assert host_file(workspace, "two").read_text() == "one"
    assert host_files(workspace) == ["two"]


async def test_move_onto_a_directory(stub: Stub, workspace: pb.Workspace) -> None:
    for name in ("empty", "moved", "full/inner"):
        host_file(workspace, name).mkdir(parents=True)
    host_file(workspace, "file").touch()
    for source, destination, reason in (
        ("file", "empty", "IS_A_DIRECTORY"),
        ("file", "full", "IS_A_DIRECTORY"),
        ("moved", "full", "DIRECTORY_NOT_EMPTY"),
        ("moved", "file", "NOT_A_DIRECTORY"),
    ):
        with refused(grpc.StatusCode.FAILED_PRECONDITION, reason):
            await move(stub, workspace, source, destination, overwrite=True)
    assert await move(stub, workspace, "moved", "empty", overwrite=True) == "/workspace/empty"
    assert host_files(workspace) == ["empty", "file", "full", "full/inner"]


@pytest.mark.parametrize(
    ("source", "destination"), [("../x", "y"), ("file", "../y"), ("/etc/passwd", "y"), ("file", "/tmp/y")]
)
async def test_move_does_not_lead_out(stub: Stub, workspace: pb.Workspace, source: str, destination: str) -> None:
    host_file(workspace, "file").touch()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await move(stub, workspace, source, destination, overwrite=True)
    refusal = Refusal.of(caught.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PATH_ESCAPES")
    assert host_files(workspace) == ["file"]


@pytest.mark.parametrize(
    ("request_type", "fields", "field"),
    [
        (pb.RemoveFileRequest, {"path": "."}, "path"),
        (pb.RemoveFileRequest, {"path": "dir/..", "recursive": True}, "path"),
        (pb.MakeDirectoryRequest, {"path": "."}, "path"),
        (pb.MoveFileRequest, {"source_path": ".", "destination_path": "new"}, "source_path"),
        (pb.MoveFileRequest, {"source_path": "dir", "destination_path": "."}, "destination_path"),
        (pb.CopyFileRequest, {"source_path": ".", "destination_path": "new", "recursive": True}, "destination_path"),
        (
            pb.CopyFileRequest,
            {"source_path": "dir", "destination_path": "dir/x", "recursive": True},
            "destination_path",
        ),
    ],
    ids=str,
)
async def test_path_that_makes_no_sense_is_named(
    stub: Stub, workspace: pb.Workspace, request_type: type[Any], fields: dict[str, Any], field: str
) -> None:
    """Also where it is the guest that finds out: the working directory itself can go nowhere."""
    host_file(workspace, "dir").mkdir()
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", field):
        await call(stub, request_type(workspace_id=workspace.workspace_id, **fields))
    assert host_files(workspace) == ["dir"]


async def test_symlink_itself_is_described(stub: Stub, workspace: pb.Workspace) -> None:
    host_file(workspace, "link").symlink_to("lost")
    request = pb.StatFileRequest(workspace_id=workspace.workspace_id, path="link", no_follow=True)
    file = (await stub.StatFile(request)).file
    assert (file.type, file.symlink_target, file.path) == (pb.FILE_TYPE_SYMLINK, "lost", "/workspace/link")
    request.no_follow = False
    with refused(grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND"):
        await stub.StatFile(request)


async def test_directory_with_a_mode(stub: Stub, workspace: pb.Workspace) -> None:
    request = pb.MakeDirectoryRequest(workspace_id=workspace.workspace_id, path="dir", mode=0o700)
    assert (await stub.MakeDirectory(request)).file.mode == 0o700
    with refused(grpc.StatusCode.ALREADY_EXISTS, "FILE_EXISTS"):
        await stub.MakeDirectory(request)
    request.parents = True
    assert (await stub.MakeDirectory(request)).file.path == "/workspace/dir"
