"""What a service writes down of its workspaces, and what it asks of the book that it writes into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agentic_isolation.models import WorkspaceConfig, WorkspaceInfo


@dataclass(frozen=True, slots=True)
class WorkspaceRecord:
    """A workspace as it is written down."""

    config: WorkspaceConfig
    """What was asked for, without its secrets; its `lease` is that of the last renewal."""
    info: WorkspaceInfo
    """Its `state` is CREATING, READY or DESTROYING."""
    request_id: str = ""
    """Of the CreateWorkspace that asked for it."""
    owner: str = ""
    """The tenant whose it is; empty: of whoever runs the service."""
    secrets_fingerprint: str = ""
    """Of the secrets that were asked for, for telling requests apart; empty where there were none."""
    pool: str = ""
    """Whose place it is as long as nobody has asked for it, by the pool's name; empty: it is somebody's workspace."""
    image_id: str = ""
    """What the image of a pool's place stood for when it was made."""
    boot_id: str = ""
    """Of its guest; empty: there is none yet, or an earlier version of the service has written it down."""


class Registry(Protocol):
    """Who owns which workspace, and what became of the requests for them.

    The engines and the guests are the truth about what exists; this is the truth about whose it is.
    Every method may raise RegistryUnavailableError: it cannot be read or written, and says why.
    """

    async def load(self) -> list[WorkspaceRecord]:
        """Returns all workspaces that were put and not removed."""

    async def find_request(
        self, owner: str, request_id: str, config: WorkspaceConfig, secrets_fingerprint: str = ""
    ) -> str | None:
        """Returns the id of the workspace that an owner's request has made, also of one that is gone; None: none.

        Raises:
            InvalidArgumentError: The request asked for something else.
        """

    async def put(self, record: WorkspaceRecord) -> None:
        """Writes a workspace down, in place of what was written of it before.

        From when it is READY a repeat of its request finds it. While it is CREATING nobody was told of it, and a repeat
        makes another one, also where it was READY before.
        """

    async def renew(self, record: WorkspaceRecord) -> None:
        """Writes the lease of a workspace down."""

    async def remove(self, workspace_id: str, *, keep_request: bool) -> None:
        """Forgets a workspace; with `keep_request` a repeat of its request still finds that there was one."""

    async def prune(self, window: float) -> None:
        """Forgets the requests of workspaces that have been gone for `window` seconds."""

    def encode(self, record: WorkspaceRecord) -> str:
        """Returns a workspace as text, for keeping a copy elsewhere."""

    def decode(self, text: str) -> WorkspaceRecord:
        """Returns the workspace of a text. Raises ValueError where it is none of `encode`'s."""
