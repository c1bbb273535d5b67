"""Pages of workspaces, in an order that holds whatever comes and goes between two of them."""

from __future__ import annotations

import base64
from collections.abc import Iterable

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.models import WorkspaceInfo


def page_of(workspaces: Iterable[WorkspaceInfo], limit: int, after: str) -> tuple[list[WorkspaceInfo], str]:
    """Returns a page of workspaces, oldest first, and the next page's token.

    Raises:
        InvalidArgumentError: The limit is not from 1 to 1,000, or the token is none that was given out.
    """
    if not 1 <= limit <= 1000:
        raise InvalidArgumentError(f"{limit} is not from 1 to 1000", field="page_size")
    # Creation order and ids make the order total, so a page goes on where the last ended whatever has ended since.
    ordered = sorted(workspaces, key=lambda info: (info.created_at, info.id))
    if after:
        last = _parse_token(after)
        ordered = [info for info in ordered if (info.created_at.isoformat(timespec="microseconds"), info.id) > last]
    page = ordered[:limit]
    return page, _token(page[-1]) if len(ordered) > limit else ""


def last_of(token: str) -> str:
    """Returns the id of the last workspace of the page before.

    Raises:
        InvalidArgumentError: The token is none that was given out.
    """
    return _parse_token(token)[1]


def _token(info: WorkspaceInfo) -> str:
    return base64.urlsafe_b64encode(f"{info.created_at.isoformat(timespec='microseconds')} {info.id}".encode()).decode()


def _parse_token(token: str) -> tuple[str, str]:
    try:
        created_at, workspace_id = base64.urlsafe_b64decode(token.encode()).decode().split(" ")
    except ValueError:
        raise InvalidArgumentError("not a token that this service gave out", field="page_token") from None
    return created_at, workspace_id
