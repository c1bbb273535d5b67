"""Metadata by which a proxy in front of replicas finds the one that a call is for."""

from __future__ import annotations

from typing import Any

from agentic_isolation.v1 import workspace_pb2 as pb

WORKSPACE_KEY = "agentic-isolation-workspace"
"""The id of the workspace that the call is about."""
REQUEST_KEY = "agentic-isolation-request"
"""The call's request_id, or the process that it resumes: it may be repeated, and its repeats belong to one replica."""
REPLICA_KEY = "agentic-isolation-replica"
"""The name of the replica that is to take the call."""

_REPEATABLE = (pb.ExecuteRequest, pb.StreamRequest, pb.CreateWorkspaceRequest)
_MAX_REMEMBERED = 1024
_MAX_VALUE = 128


class Routing:
    """What a connection knows of the way to replicas.

    Args:
        replica: The one that takes all calls which are about no workspace; empty: any.
    """

    def __init__(self, replica: str = "") -> None:
        self._replica = replica
        self._learned: dict[str, str] = {}

    def metadata(self, head: Any, replica: str = "") -> tuple[tuple[str, str], ...]:
        """Returns the metadata of a call.

        Args:
            head: Its request, or the one message of many that names the workspace.
            replica: The one that it is for; empty: the one that is known to have the workspace, if any.
        """
        told = []
        if _is_text(workspace_id := getattr(head, "workspace_id", "")):
            told.append((WORKSPACE_KEY, workspace_id))
        if _is_text(request_id := _repeated_as(head)):
            told.append((REQUEST_KEY, request_id))
        replica = replica or (self._learned.get(workspace_id, "") if workspace_id else self._replica)
        if _is_text(replica):
            told.append((REPLICA_KEY, replica))
        return tuple(told)

    def learn(self, head: Any, replica: str) -> bool:
        """Takes note of which replica has a call's workspace; returns whether that is news."""
        workspace_id = getattr(head, "workspace_id", "")
        if not replica or self._learned.get(workspace_id) == replica:
            return False
        if workspace_id:
            self._learned[workspace_id] = replica
            if len(self._learned) > _MAX_REMEMBERED:
                del self._learned[next(iter(self._learned))]
        return True


def _repeated_as(head: Any) -> str:
    """Returns what a repeat of a call would find again, where it does no harm; the request_id of others is no such."""
    if not isinstance(head, _REPEATABLE):
        return ""
    request_id: str = head.request_id
    return request_id or (head.resume.process_id if isinstance(head, pb.StreamRequest) else "")


def _is_text(value: str) -> bool:
    """Returns whether metadata can hold a value; what it cannot, the service refuses by itself."""
    return 1 <= len(value) <= _MAX_VALUE and value.isascii() and value.isprintable()
