"""From a run's document to Markdown: for README.md and docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.goals import outcomes
from benchmarks.metrics import METRICS
from benchmarks.report import amount, asked_and_found, rows
from benchmarks.results import figures_from_json


def markdown(document: Mapping[str, Any], *, summary: bool) -> str:
    """Returns the goals' table, and without `summary` all figures too, with what they were taken on and how."""
    figures = figures_from_json(document)
    lines = [_taken_on(document), "", *_table(("Goal", "Asked", "Found", ""), map(asked_and_found, outcomes(figures)))]
    if not summary:
        cells = []
        before = ""
        for metric, contender, figure, compared in rows(figures):
            title = METRICS[metric].title if metric != before else ""
            before = metric
            p95 = amount(figure.p95) if figure.count >= 20 and not METRICS[metric].higher else ""
            cells.append((title, contender, f"{amount(figure.median)} {METRICS[metric].unit}", p95, compared))
        lines += ["", *_table(("Measure", "Contender", "Median", "p95", "Against the reference"), cells)]
    return "\n".join(lines)


def _taken_on(document: Mapping[str, Any]) -> str:
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


def _table(headings: tuple[str, ...], cells: Any) -> list[str]:
    lines = [f"| {' | '.join(headings)} |", f"| {' | '.join('---' for _ in headings)} |"]
    return lines + [f"| {' | '.join(row)} |" for row in cells]
