"""Judges a run by what its clients were told and what lies in the workspaces. It knows nothing of the service."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.check_commands import check_answers, check_logs
from tests.chaos.check_files import check_files
from tests.chaos.findings import Violation
from tests.chaos.history import History, Outage
from tests.chaos.journal import Operation
from tests.chaos.settings import RETRY_TIMEOUT

_GONE = frozenset({"WORKSPACE_LOST", "WORKSPACE_NOT_FOUND", "NOT_FOUND"})
_ENGINE_OUTAGES = frozenset({"engine restart", "engine kill", "engine cut"})
_ENGINE_SLACK = 5.0
"""Seconds after which an engine that answers again is there for everybody."""
_NEARLY = 0.9
"""Of the patience of clients; jitter and a last attempt make the rest."""


def check(history: History) -> list[Violation]:
    """Returns all that must not be, in order of time."""
    found = [
        *check_ends(history),
        *check_creations(history),
        *check_answers(history),
        *check_logs(history),
        *check_files(history),
    ]
    return sorted(found, key=lambda each: each.at)


def check_ends(history: History) -> Iterator[Violation]:
    """Every operation ends, and fails only for what was done to it."""
    last = max((each.ended or each.started for each in history.operations), default=0.0)
    for operation in history.operations:
        if operation.ended is None:
            if operation.client not in history.killed:
                yield Violation.about("unanswered", operation, "it was never answered", at=last)
        elif operation.reason is not None and not explained(operation, history):
            yield Violation.about("failed", operation, f"it failed with {operation.reason}, and no fault explains that")


def explained(operation: Operation, history: History) -> bool:
    """Whether the faults explain how an operation failed."""
    assert operation.ended is not None
    began, ended = operation.started, operation.ended
    if operation.reason in _GONE:
        return history.removed.get(operation.workspace, ended) < ended
    if operation.reason == "FILE_NOT_FOUND" and operation.kind == "read":
        return True  # check_files judges it
    if operation.kind == "create" and operation.reason == "PROVIDER_UNAVAILABLE":
        return any(
            outage.kind in _ENGINE_OUTAGES and outage.began <= ended and began <= outage.ended + _ENGINE_SLACK
            for outage in history.outages
        )
    if operation.reason in {"UNAVAILABLE", "PROVIDER_UNAVAILABLE"}:
        return any(
            outage.ended - outage.began >= _NEARLY * RETRY_TIMEOUT and outage.began <= ended and began <= outage.ended
            for outage in joined(history.outages)
        )
    return False


def joined(outages: list[Outage]) -> list[Outage]:
    """Returns outages with those that follow each other without a pause made one."""
    merged: list[Outage] = []
    for outage in sorted(outages, key=lambda outage: outage.began):
        if merged and outage.began <= merged[-1].ended:
            before = merged.pop()
            outage = Outage(before.kind, before.began, max(before.ended, outage.ended))
        merged.append(outage)
    return merged


def check_creations(history: History) -> Iterator[Violation]:
    """Each creation gives a workspace of its own, with the runtime that was asked for."""
    makers: dict[str, str] = {}
    for operation in history.operations:
        if operation.kind != "create" or operation.answer is None:
            continue
        identity, runtime = operation.answer["workspace"], operation.answer["runtime"]
        if identity in makers:
            yield Violation.about("creation", operation, f"{identity} is the workspace of {makers[identity]} as well")
        makers[identity] = operation.id
        if runtime != operation.runtime:
            yield Violation.about(
                "creation", operation, f"{operation.runtime} was asked for, and {identity} has {runtime}"
            )
