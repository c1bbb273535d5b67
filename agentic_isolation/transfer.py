"""Values of transfers: how far one is, and what it has come to."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TransferProgress", "TransferSummary"]


@dataclass(frozen=True, slots=True)
class TransferSummary:
    """What was transferred: the files of a directory, or one file."""

    files: int
    """Regular files and hard links."""
    directories: int
    symlinks: int
    skipped: int
    """What was left out because it is none of these: devices, pipes and sockets."""
    content_bytes: int
    """Bytes of the files' contents."""


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """How far a transfer is."""

    done_bytes: int
    """Bytes of content that have been handed over."""
    total_bytes: int | None
    """Bytes of content in all; None while that is not known."""
    path: str
    """The file that is under way, as the side that is read from names it."""
