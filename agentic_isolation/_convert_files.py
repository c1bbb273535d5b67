"""Transfers and watches: models ↔ messages of the contract."""

from __future__ import annotations

from agentic_isolation import _convert as convert
from agentic_isolation.changes import FileChange, FileChangeType, WatchEvent, WatchOverflow, WatchStarted
from agentic_isolation.runs import KeepAlive
from agentic_isolation.transfer import TransferSummary
from agentic_isolation.v1 import workspace_pb2 as pb

_CHANGES = {kind: pb.FileChangeType.Value(f"FILE_CHANGE_TYPE_{kind.name}") for kind in FileChangeType}
_CHANGES_BY_NUMBER = {number: kind for kind, number in _CHANGES.items()}


def summary_to_pb(summary: TransferSummary) -> pb.ArchiveSummary:
    """TransferSummary → message."""
    return pb.ArchiveSummary(
        files_count=summary.files,
        directories_count=summary.directories,
        symlinks_count=summary.symlinks,
        skipped_count=summary.skipped,
        content_bytes=summary.content_bytes,
    )


def watch_event_to_pb(event: WatchEvent | KeepAlive) -> pb.WatchDirectoryResponse:
    """WatchEvent → WatchDirectoryResponse."""
    match event:
        case FileChange(kind, path, from_path, is_directory):
            change = pb.FileChange(type=_CHANGES[kind], path=path, from_path=from_path, is_directory=is_directory)
            return pb.WatchDirectoryResponse(change=change)
        case WatchStarted(directory):
            started = pb.WatchStarted(directory=convert.file_to_pb(directory))
            return pb.WatchDirectoryResponse(watching=started)
        case WatchOverflow():
            return pb.WatchDirectoryResponse(overflow=pb.WatchOverflow())
        case KeepAlive():
            return pb.WatchDirectoryResponse(keepalive=pb.KeepAlive())


def watch_event_from_pb(message: pb.WatchDirectoryResponse) -> WatchEvent | None:
    """WatchDirectoryResponse → WatchEvent; None for a sign of life, or what a newer server sends."""
    match message.WhichOneof("event"):
        case "watching":
            return WatchStarted(convert.file_from_pb(message.watching.directory))
        case "change":
            change = message.change
            kind = _CHANGES_BY_NUMBER.get(change.type)
            return None if kind is None else FileChange(kind, change.path, change.from_path, change.is_directory)
        case "overflow":
            return WatchOverflow()
        case _:
            return None
