"""Values of a watch: what has changed in a directory."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from agentic_isolation.models import FileInfo

__all__ = ["FileChange", "FileChangeType", "WatchEvent", "WatchOverflow", "WatchStarted"]


class FileChangeType(Enum):
    """What has become of a file."""

    CREATED = "created"
    """It is new at this path."""
    MODIFIED = "modified"
    """Its content was written to."""
    REMOVED = "removed"
    """It is gone from this path."""
    MOVED = "moved"
    """It has come to this path from another one that is watched as well."""
    ATTRIBUTES = "attributes"
    """Its mode, owner or times were changed."""


@dataclass(frozen=True, slots=True)
class WatchStarted:
    """The watch is in place: what changes from now on is told."""

    directory: FileInfo


@dataclass(frozen=True, slots=True)
class FileChange:
    """Something has changed."""

    type: FileChangeType
    path: str
    """Absolute, as seen in the workspace."""
    from_path: str = ""
    """Where it was before it was moved."""
    is_directory: bool = False


@dataclass(frozen=True, slots=True)
class WatchOverflow:
    """Changes were missed here; list the directory to know what is there now."""


WatchEvent = WatchStarted | FileChange | WatchOverflow
"""What a watch consists of."""
