"""Pages of workspaces, in an order that holds whatever comes and goes between two of them."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable, Sequence

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.models import WorkspaceInfo
from agentic_isolation_service.core.replicas import check_name, is_id

_MOST = 1 << 20
"""Bytes that the labels of a page may take, beside its first workspace's. Clients take messages of 4 MiB, unless they
are told otherwise, and a thousand workspaces have room for 65 MiB of labels."""


def page_of(
    workspaces: Iterable[WorkspaceInfo], limit: int, after: str, replica: str
) -> tuple[list[WorkspaceInfo], str]:
    """Returns a page of workspaces, oldest first, and the next page's token, which names the replica.

    It has fewer than `limit` where they are large, and one at least.

    Raises:
        InvalidArgumentError: The limit is not from 1 to 1,000, or the token is none that was given out.
    """
    if not 1 <= limit <= 1000:
        raise InvalidArgumentError(f"{limit} is not from 1 to 1000", field="page_size")
    # Creation order and ids make the order total, so a page goes on where the last ended whatever has ended since.
    ordered = sorted(workspaces, key=lambda info: (info.created_at, info.id))
    if after:
        *last, _ = _parse_token(after)
        ordered = [info for info in ordered if [info.created_at.isoformat(timespec="microseconds"), info.id] > last]
    page = ordered[: _count_of(ordered[:limit])]
    return page, _token(page[-1], replica) if len(ordered) > len(page) else ""


def _count_of(workspaces: Sequence[WorkspaceInfo]) -> int:
    """Returns how many of the first ones there is room for."""
    size = 0
    for count, info in enumerate(workspaces):
        size += sum(len((name + value).encode()) for name, value in info.labels.items())
        if size > _MOST and count:
            return count
    return len(workspaces)


def replica_of(token: str) -> str:
    """Returns the name of the replica that gave a token out.

    The last workspace's id does not tell: a replica that was renamed still has those with its old name.

    Raises:
        InvalidArgumentError: The token is none that was given out.
    """
    return _parse_token(token)[2]


def _token(info: WorkspaceInfo, replica: str) -> str:
    created_at = info.created_at.isoformat(timespec="microseconds")
    return base64.urlsafe_b64encode(f"{created_at} {info.id} {replica}".encode()).decode()


def _parse_token(token: str) -> tuple[str, str, str]:
    with contextlib.suppress(ValueError):  # an InvalidArgumentError is one
        created_at, workspace_id, replica = base64.urlsafe_b64decode(token.encode()).decode().split(" ")
        if replica:
            check_name(replica)
        if is_id(workspace_id):
            return created_at, workspace_id, replica
    raise InvalidArgumentError("not a token that this service gave out", field="page_token")
