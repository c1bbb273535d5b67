"""From a run's document to Markdown: for README.md and docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.goals import outcomes
from benchmarks.metrics import METRICS
from benchmarks.report import amount, asked_and_found, rows
from benchmarks.results import Figures, figures_from_json

BEGIN = "<!-- figures: python -m benchmarks render --into -->"
END = "<!-- end of figures -->"
_SIDE_BY_SIDE = {
    "create_ms": "create",
    "execute_ms": "`true`",
    "per_second_16": "`true`, 16 in flight",
    "first_line_ms": "first line",
    "line_ms": "each line",
    "bulk_mib_s": "bulk stdout",
    "file_ms": "1 MiB there and back",
}
"""Metrics of the short table, with their headings."""


def markdown(document: Mapping[str, Any], *, summary: bool) -> str:
    """Returns the goals' table, and without `summary` all figures too, with what they were taken on and how."""
    figures = figures_from_json(document)
    goals = map(asked_and_found, outcomes(figures, document["scale"]))
    lines = [taken_on(document), "", *table(("Goal", "Asked", "Found", "", "Embedded"), goals)]
    lines += ["", *_side_by_side(figures)]
    if not summary:
        cells = []
        before = ""
        for metric, contender, figure, compared in rows(figures):
            title = METRICS[metric].title if metric != before else ""
            before = metric
            p95 = amount(figure.p95) if figure.count >= 20 and not METRICS[metric].higher else ""
            cells.append((title, contender, f"{amount(figure.median)} {METRICS[metric].unit}", p95, compared))
        lines += ["", *table(("Measure", "Contender", "Median", "p95", "Against the reference"), cells)]
    return "\n".join(lines)


def put_into(path: Path, text: str, *, begin: str = BEGIN, end: str = END) -> None:
    """Puts Markdown between a page's markers, in place of what an earlier run has left there.

    Raises:
        ValueError: The page has no place for it.
    """
    page = path.read_text()
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{path} has no place for figures: put {begin} and {end} where they should be")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def _side_by_side(figures: Figures) -> list[str]:
    """Returns the table with a row for each contender: what one looks for first."""
    shown = [metric for metric in _SIDE_BY_SIDE if metric in figures]
    contenders = dict.fromkeys(contender for metric in shown for contender in figures[metric])
    headings = ["", *(f"{_SIDE_BY_SIDE[metric]}, {METRICS[metric].unit}" for metric in shown)]
    cells = []
    for contender in contenders:
        found = [figures[metric].get(contender) for metric in shown]
        cells.append([contender, *("" if figure is None else amount(figure.median) for figure in found)])
    return table(headings, cells)


def taken_on(document: Mapping[str, Any]) -> str:
    """Returns the date, the command, and the machine of a run in words."""
    machine, engine = document["machine"], document["engine"]
    words = [
        f"Taken {document['taken_at'][:10]} with `{document['command']}`: {machine['cores']} cores ({machine['cpu']})",
        f"{machine['memory_gib']} GiB, {machine['system']}, Linux {machine['kernel']}, Python {machine['python']}",
        f"load before {machine['load_before'][0]}",
    ]
    if engine:
        gvisor = f", {engine['runsc']}" if engine["runsc"] else ""
        words.insert(2, f"Docker Engine {engine['version']}{gvisor}")
    return "; ".join(words) + "."


def table(headings: Sequence[str], cells: Iterable[Sequence[str]]) -> list[str]:
    """Returns a table's lines."""
    lines = [f"| {' | '.join(headings)} |", f"| {' | '.join('---' for _ in headings)} |"]
    return lines + [f"| {' | '.join(row)} |" for row in cells]
