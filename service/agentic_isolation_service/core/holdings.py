"""The workspaces that a service has in its hands: whose each of them is, and how it ends.

That a workspace is somebody else's is found out here and nowhere else, and looks as if there had never been any.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from agentic_isolation.errors import InvalidArgumentError, WorkspaceNotFoundError
from agentic_isolation.models import WorkspaceState
from agentic_isolation_service.core.caller import Caller
from agentic_isolation_service.core.counts import Counts
from agentic_isolation_service.core.removal import Removals
from agentic_isolation_service.core.replicas import Replica
from agentic_isolation_service.core.workspace import HeldWorkspace

_log = logging.getLogger(__name__)


class Holdings:
    """Workspaces by their ids, each from when it is somebody's until nothing is left of it.

    Args:
        removals: What removes those that nobody waits for.
        counts: Where those are counted whose time is over.
        replica: Which of the services behind one proxy this is.
    """

    def __init__(self, removals: Removals, counts: Counts, replica: Replica) -> None:
        self._removals = removals
        self._counts = counts
        self._replica = replica
        self._held: dict[str, HeldWorkspace] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[HeldWorkspace]:
        return iter(self._held.values())

    @property
    def ids(self) -> AbstractSet[str]:
        """The ids of all of them."""
        return self._held.keys()

    def get(self, workspace_id: str) -> HeldWorkspace | None:
        """Returns a workspace, whosever it is; None: there is none of that id."""
        return self._held.get(workspace_id)

    def find(self, caller: Caller, workspace_id: str) -> HeldWorkspace:
        """Returns a workspace that is the caller's to use.

        Raises:
            InvalidArgumentError: The id is empty.
            WrongReplicaError: It is another replica's, whosever it is.
            WorkspaceNotFoundError: There is none of that id, or none any more, or it is somebody else's.
        """
        if not workspace_id:
            raise InvalidArgumentError("name the workspace", field="workspace_id")
        held = self._held.get(workspace_id)
        if held is None or not caller.has(held.owner):
            self._replica.check(workspace_id)
            raise WorkspaceNotFoundError(
                f"there is no workspace {workspace_id!r}: it was destroyed, its lease has run out, or it never existed"
            )
        return held

    def seen_by(self, caller: Caller) -> Iterator[HeldWorkspace]:
        """Returns the workspaces that are the caller's to use."""
        return (held for held in self._held.values() if caller.has(held.owner))

    def hold(self, held: HeldWorkspace) -> None:
        """Takes a workspace in, and watches its lease."""
        self._held[held.info.id] = held
        held.watch(lambda: self._expire(held))

    async def destroy(self, held: HeldWorkspace) -> None:
        """Destroys a workspace, see HeldWorkspace.destroy, and forgets it."""
        await held.destroy(lambda: self._forget(held))

    def reap(self, held: HeldWorkspace) -> asyncio.Task[None]:
        """Destroys a workspace in the background, however long that takes; returns the task."""
        return self._removals.begin(held.info.id, lambda: self.destroy(held))

    def _forget(self, held: HeldWorkspace) -> None:
        self._held.pop(held.info.id, None)

    def _expire(self, held: HeldWorkspace) -> None:
        if held.state is not WorkspaceState.DESTROYING and held.info.id not in self._removals:
            self._counts.of(held.provider).expired[held.session.ending or "lease"] += 1
        _log.info("a workspace's time is over", extra={"workspace_id": held.info.id})
        self.reap(held)
