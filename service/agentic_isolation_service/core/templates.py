"""What a pool is configured by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.models import WorkspaceConfig

MAX_PLACES = 1000
"""Places that one pool may keep ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTemplate:
    """Places to keep ready, and how many.

    Raises:
        InvalidArgumentError: The sizes make no sense; the error names the one.
    """

    name: str
    """What it is called where it is shown; no other template of the service has it."""
    config: WorkspaceConfig
    """What the places are made from: provider, image, working directory, security and limits. Everything else is the
    workspace's that takes one."""
    min: int = 1
    """Places that are always kept ready."""
    max: int = 4
    """Places that are kept ready when many are asked for."""
    tenants: Sequence[str] | None = None
    """Whose workspaces the places may become; None: anybody's."""

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidArgumentError("the name is empty; leave it out, or give one", field="name")
        if not 1 <= self.max <= MAX_PLACES:
            raise InvalidArgumentError(f"{self.max} is not from 1 to {MAX_PLACES}", field="max")
        if not 0 <= self.min <= self.max:
            raise InvalidArgumentError(f"{self.min} is not from 0 to max, which is {self.max}", field="min")

    def is_for(self, tenant: str) -> bool:
        """Returns whether a place may become a tenant's workspace."""
        return self.tenants is None or tenant in self.tenants
