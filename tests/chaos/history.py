"""What is known of a run when it is judged: operations, readings of logs, and what was broken when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.journal import Operation, operations, records

STALL = "stall of the machine"


@dataclass(frozen=True, slots=True)
class Reading:
    """The lines of a workspace's log at some time."""

    workspace: str
    started: float
    """When reading began: what was acknowledged before is in it."""
    ended: float
    lines: tuple[str, ...]
    reader: str
    """Who has read it: the id of an operation, or the engine."""


@dataclass(frozen=True, slots=True)
class Outage:
    """Something was broken."""

    kind: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class History:
    """All that a judgement rests upon."""

    operations: list[Operation]
    readings: list[Reading]
    outages: list[Outage] = field(default_factory=list)
    removed: Mapping[str, float] = field(default_factory=dict)
    """When the containers of workspaces were removed, by the workspaces' ids."""
    killed: Mapping[str, float] = field(default_factory=dict)
    """When clients were killed, by their names."""


def history(journals: Iterable[Path], faults: Path, killed: Mapping[str, float]) -> History:
    """Returns what the journals of clients and of the faults tell."""
    asked = operations(journals)
    readings = [
        Reading(each.workspace, each.started, each.ended, tuple(each.answer["lines"]), each.id)
        for each in asked
        if each.kind == "log" and each.answer is not None and each.ended is not None and not each.answer["exit_code"]
    ]
    outages = []
    removed: dict[str, float] = {}
    begun: dict[int, float] = {}
    for _, record in records(faults):
        match record["event"]:
            case "begin":
                begun[record["number"]] = record["t"]
            case "end":
                outages.append(Outage(record["kind"], begun.pop(record["number"]), record["t"]))
            case "stall":
                outages.append(Outage(STALL, record["began"], record["t"]))
            case "removed":
                removed.setdefault(record["workspace"], record["t"])
            case "reading":
                readings.append(
                    Reading(record["workspace"], record["began"], record["t"], tuple(record["lines"]), "the engine")
                )
            case event:
                raise ValueError(f"{faults} has an event {event!r}")
    return History(asked, readings, outages, removed, killed)
