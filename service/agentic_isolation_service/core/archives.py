"""Whole directories as tar streams, through the guest."""

from __future__ import annotations

from agentic_isolation.errors import BadArchiveError, InvalidArgumentError, IsolationError
from agentic_isolation.transfer import TransferSummary
from agentic_isolation_service.core import files
from agentic_isolation_service.core.transfers import Download, Upload
from agentic_isolation_service.core.validation import check_path
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.session import GuestSession


async def unpack(session: GuestSession, path: str) -> Upload[TransferSummary]:
    """Opens a directory, made if missing, for a tar stream to be unpacked into it.

    Raises:
        IsolationError: As GuestSession.open.
    """
    check_path(path, "path")
    channel = await session.open({"op": "unpack", "path": path}, since=3)
    return Upload(session, channel, payloads.archive_summary, _explained)


async def pack(session: GuestSession, path: str, ignore: list[str]) -> Download[TransferSummary]:
    """Opens a directory for reading as a tar stream.

    Args:
        session: The tie to its guest.
        path: The directory.
        ignore: What to leave out, in the syntax of gitignore(5).

    Raises:
        InvalidArgumentError: A pattern is malformed, or they leave out too many single files.
        FileError, PathEscapesError: What is to be left out cannot be told, as the directory cannot be listed.
        IsolationError: As GuestSession.open.
    """
    check_path(path, "path")
    operation: dict[str, object] = {"op": "pack", "path": path}
    if ignore:
        from agentic_isolation_service.core.ignoring import ignored_paths

        operation["exclude"] = await ignored_paths(session, path, ignore)
    try:
        channel = await session.open(operation, since=3)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            "they leave out so many single files that these cannot be named; ignore their directories instead",
            field="ignore_patterns",
        ) from error
    return Download(session, channel, payloads.archive_summary, files.naming("path"))


def _explained(error: IsolationError) -> IsolationError:
    """Returns a guest's error of an archive with the field that it is about."""
    if isinstance(error, BadArchiveError):
        return BadArchiveError(error.message, field="data")
    return files.naming("path")(error)
