"""`[audit]`: the log of who has called what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.settings.tables import Types, checked, within

_AUDIT: dict[str, Types] = {"path": (str,), "sync_interval": (int, float), "fail_closed": (bool,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """Where and how the audit log is written.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it.
    """

    path: Path
    """Its file, which one service at a time writes to."""
    sync_interval: float = 1.0
    """Seconds after which what was written is on the disk, also where the machine fails, 0 to 3600. 0: before its call
    is answered. What a service has written is never lost with its process."""
    fail_closed: bool = True
    """Refuse calls that cannot be written down. Else they are carried out, and the log tells how many it lacks."""

    def __post_init__(self) -> None:
        if not self.path.is_absolute():
            raise InvalidArgumentError(f"{str(self.path)!r} is not an absolute path", field="path")
        if not 0 <= self.sync_interval <= 3600:
            raise InvalidArgumentError(f"{self.sync_interval:g} s is not from 0 to 3600 s", field="sync_interval")


def audit_of(content: object) -> AuditSettings:
    """Returns what a table `[audit]` says.

    Raises:
        InvalidArgumentError: A setting is missing or makes no sense; the error names it, as `audit.path`.
    """
    return within("audit", partial(_settings, content))


def _settings(content: object) -> AuditSettings:
    settings = checked(content, _AUDIT)
    if "path" not in settings:
        raise InvalidArgumentError("name the file, for example /var/log/agentic-isolation/audit.jsonl", field="path")
    return AuditSettings(**settings | {"path": Path(settings["path"])})
