"""The figures of a load test: rows for people, Markdown for the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from benchmarks.load.asks import ASKS
from benchmarks.load.run import GENERATORS
from benchmarks.render import table, taken_on
from benchmarks.report import amount

BEGIN = "<!-- load: python -m benchmarks.load --render FILE --into -->"
END = "<!-- end of load -->"
_FIGURES = ("p50, ms", "p99, ms")
_HEADINGS = ("asked", "in flight", "road", "ghz, /s", *_FIGURES, "Python client, /s", *_FIGURES)

Run = Mapping[str, Any]
"""What one run of a generator has found, as run.take tells it."""


def rows(runs: Sequence[Run]) -> list[list[str]]:
    """Returns a row for each ask, number in flight and road, with the generators' figures side by side."""
    found: dict[tuple[str, int, str], dict[str, Run]] = {}
    for run in runs:
        found.setdefault((run["ask"], run["in_flight"], run["road"]), {})[run["generator"]] = run
    return [
        [ASKS[ask].title, str(in_flight), road, *(cell for name in GENERATORS for cell in _cells(by.get(name)))]
        for (ask, in_flight, road), by in found.items()
    ]


def missing(runs: Sequence[Run]) -> list[str]:
    """Returns why figures are missing, each reason once."""
    return sorted({run["missing"] for run in runs if "missing" in run})


def shown(runs: Sequence[Run]) -> Table:
    """Returns the figures as a table for a terminal."""
    made = Table(box=None)
    for position, heading in enumerate(_HEADINGS):
        made.add_column(heading, justify="left" if position in (0, 2) else "right")
    for row in rows(runs):
        made.add_row(*row)
    return made


def markdown(document: Mapping[str, Any]) -> str:
    """Returns the figures as Markdown, with what they were taken on and how."""
    programs = f"ghz {document['ghz'] or '(none)'}, Envoy {document['envoy'] or '(none)'}"
    lines = [f"{taken_on(document)} {programs}; {document['seconds']:g} s each.", ""]
    lines += table(_HEADINGS, rows(document["runs"]))
    lines += [f"\nMissing: {why}" for why in missing(document["runs"])]
    return "\n".join(lines)


def _cells(run: Run | None) -> Sequence[str]:
    if run is None or "missing" in run:
        return ("", "", "")
    failed = f" ({run['failed']} failed)" if run["failed"] else ""
    return (f"{amount(run['rate'])}{failed}", amount(run["p50_ms"]), amount(run["p99_ms"]))
