"""The report of a run: a table for people, a document for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.goals import Kind, Outcome, outcomes
from benchmarks.metrics import METRICS
from benchmarks.results import Figure, Figures, Results, figures_from_json, ratio

FORMAT = 1
"""Of the document."""
_WORDS = {True: "met", False: "not met", None: "not measured"}


def document(results: Results, about: Mapping[str, object]) -> dict[str, Any]:
    """Returns all of a run as a JSON document: what it was taken with, figures, goals, and who is missing."""
    figures = results.figures()
    return {
        "format": FORMAT,
        **about,
        "figures": {
            metric: {contender: asdict(figure) for contender, figure in contenders.items()}
            for metric, contenders in figures.items()
        },
        "goals": [
            {
                "goal": _asked(outcome),
                "title": outcome.goal.title,
                "figure": outcome.figure,
                "met": outcome.met,
                "figure_embedded": outcome.embedded,
                "met_embedded": outcome.met_embedded,
            }
            for outcome in outcomes(figures, str(about["scale"]))
        ],
        "missing": results.missing,
    }


def write(path: Path, content: Mapping[str, object]) -> None:
    """Writes a document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def read(paths: Sequence[Path]) -> dict[str, Any]:
    """Returns a document, or those of parts of a run as one: what they were taken with is the first one's.

    Raises:
        ValueError: They are of different scales.
    """
    documents = [json.loads(path.read_text()) for path in paths]
    if len(scales := {found["scale"] for found in documents}) > 1:
        raise ValueError(f"these are no parts of one run: their scales are {' and '.join(sorted(scales))}")
    together: dict[str, Any] = {**documents[0], "figures": {}, "missing": {}}
    for found in documents:
        for metric, contenders in found["figures"].items():
            together["figures"].setdefault(metric, {}).update(contenders)
        for contender, reasons in found["missing"].items():
            together["missing"].setdefault(contender, {}).update(reasons)
    return together


def show(content: Mapping[str, Any], console: Console) -> None:
    """Prints a document's figures, goals, and who is missing."""
    figures = figures_from_json(content)
    console.print(_figures(figures))
    found = outcomes(figures, content["scale"])
    console.print(_goals([outcome for outcome in found if outcome.goal.metric in figures]))
    for contender, reasons in content["missing"].items():
        for measure, why in reasons.items():
            if not measure or not why.startswith("unsupported"):
                console.print(f"{contender}{', ' if measure else ''}{measure}: missing: {why}", markup=False)


def rows(figures: Figures) -> list[tuple[str, str, Figure, str]]:
    """Returns metric, contender, figure, and how it compares with its reference, for each figure."""
    found = []
    for metric, contenders in figures.items():
        for contender, figure in contenders.items():
            reference = METRICS[metric].reference(contender)
            found.append((metric, contender, figure, comparison(metric, figure, contenders.get(reference or ""))))
    return found


def comparison(metric: str, figure: Figure, reference: Figure | None) -> str:
    """Returns, in words, how much better or worse than the reference a figure is."""
    if reference is None:
        return ""
    times = ratio(figure.rounds, reference.rounds)
    if METRICS[metric].higher:
        words = "times as many" if METRICS[metric].unit == "/s" else "times as much"
        return f"{times:.2g} {words}" if times < 10 else f"{times:.0f} {words}"
    if times == 0:
        return ""
    if times <= 1:
        return f"{1 / times:.2g} times faster" if times > 0.1 else f"{1 / times:.0f} times faster"
    return f"{times:.2g} times as long" if times < 10 else f"{times:.0f} times as long"


def amount(value: float) -> str:
    """Returns a figure with as many digits as it deserves."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def asked_and_found(outcome: Outcome) -> Sequence[str]:
    """Returns a goal's title, what is asked, what was found and whether it is met, and both for an embedded service."""
    embedded = (
        "" if outcome.embedded is None else f"{_found(outcome, outcome.embedded)}, {_WORDS[outcome.met_embedded]}"
    )
    return outcome.goal.title, _asked(outcome), _found(outcome, outcome.figure), _WORDS[outcome.met], embedded


def _asked(outcome: Outcome) -> str:
    goal = outcome.goal
    if goal.kind in (Kind.FASTER, Kind.MANY):
        return f"at least {goal.bound:g} {goal.kind.value}"
    if goal.kind is Kind.TIMES:
        return f"at most {goal.bound:g} times"
    return "none" if goal.kind is Kind.ALL else f"below {goal.bound:,g} {goal.unit}"


def _found(outcome: Outcome, figure: float | None) -> str:
    unit = "times" if outcome.goal.references else outcome.goal.unit
    return "" if figure is None else f"{amount(figure)} {unit}".strip()


def _figures(figures: Figures) -> Table:
    table = Table("MEASURE", "CONTENDER", box=None)
    for heading in ("MEDIAN", "P95", ""):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_column("AGAINST THE REFERENCE")
    before = ""
    for metric, contender, figure, compared in rows(figures):
        title = METRICS[metric].title if metric != before else ""
        if title and before:
            table.add_row()
        before = metric
        p95 = amount(figure.p95) if figure.count >= 20 and not METRICS[metric].higher else ""
        table.add_row(title, contender, amount(figure.median), p95, METRICS[metric].unit, compared)
    return table


def _goals(found: Sequence[Outcome]) -> Table:
    table = Table("GOAL", "ASKED", "FOUND", "", "EMBEDDED", box=None)
    for outcome in found:
        table.add_row(
            *asked_and_found(outcome), style="green" if outcome.met else "red" if outcome.met is False else "dim"
        )
    return table
