"""Pages of workspaces: all come, each once, in messages that clients take."""

from __future__ import annotations

import datetime as dt

import pytest

from agentic_isolation.models import Isolation, WorkspaceInfo, WorkspaceState
from agentic_isolation_service.core.pages import page_of
from agentic_isolation_service.core.replicas import Replica

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
MESSAGE = 4 << 20
"""Bytes that gRPC's clients take where they are not told otherwise."""


def workspace(number: int, labels: dict[str, str]) -> WorkspaceInfo:
    return WorkspaceInfo(
        id=Replica("").new_id(),
        provider="fake",
        state=WorkspaceState.READY,
        working_dir="/workspace",
        created_at=NOW + dt.timedelta(seconds=number),
        lease_expires_at=NOW,
        isolation=Isolation(runtime=""),
        image="",
        labels=labels,
    )


LARGEST = {f"{number:063}": "\N{GRINNING FACE}" * 256 for number in range(64)}


@pytest.mark.parametrize(
    ("labels", "limit", "pages"),
    [({"a": "b"}, 100, 1), ({"a": "b"}, 50, 2), (LARGEST, 100, 7), (LARGEST, 1, 100)],
    ids=["small", "small-by-halves", "large", "one-by-one"],
)
def test_all_come_in_messages_of_a_size_that_clients_take(labels: dict[str, str], limit: int, pages: int) -> None:
    workspaces = [workspace(number, labels) for number in range(100)]
    seen: list[list[WorkspaceInfo]] = []
    token = ""
    while not seen or token:
        page, token = page_of(workspaces, limit, token, "")
        seen.append(page)
        assert sum(len((name + value).encode()) for info in page for name, value in info.labels.items()) < MESSAGE / 2
    assert [info for page in seen for info in page] == workspaces
    assert len(seen) == pages
