"""The benchmarks work: workers take their turns, figures become a report, and nothing stays behind."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from benchmarks import render, report
from benchmarks.goals import Goal, Kind, outcomes
from benchmarks.measures import MEASURES
from benchmarks.results import Figure, Results
from benchmarks.roster import Entry, roster
from benchmarks.scale import SMOKE
from benchmarks.suite import Suite

MACHINE = {
    "cores": 2,
    "cpu": "any",
    "memory_gib": 8.0,
    "system": "any",
    "kernel": "6",
    "python": "3",
    "load_before": [0],
}


def entries(*names: str) -> list[Entry]:
    return [entry for entry in roster(None, "test") if entry.name in names]


async def test_measures_and_reports(tmp_path: Path) -> None:
    told: list[str] = []
    wanted = [
        *entries("subprocess/host", "served/local"),
        Entry("absent/host", "benchmarks.contenders.absent", "Absent"),
    ]
    async with Suite(wanted, SMOKE, tmp_path / "log", told.append) as suite:
        await suite.start()
        await suite.run({name: MEASURES[name] for name in ("lifecycle", "execute", "lines", "bulk", "file")})
    results = suite.results
    assert "No module named" in results.missing.pop("absent/host")[""]
    assert results.missing == {"subprocess/host": {"file": "unsupported: has no files"}}
    figures = results.figures()
    assert set(figures["execute_ms"]) == {"subprocess/host", "served/local"}
    assert figures["line_ms"]["served/local"].count == SMOKE.lines
    assert set(figures["file_ms"]) == {"served/local"}

    about = {"taken_at": "2026-01-01", "command": "make bench", "scale": "smoke", "machine": MACHINE, "engine": {}}
    report.write(tmp_path / "run.json", report.document(results, about))
    markdown = render.markdown(json.loads((tmp_path / "run.json").read_text()), summary=False)
    assert "| a command: true | subprocess/host |" in markdown
    assert "not measured" in markdown


async def test_leaves_nothing_when_it_is_cancelled_in_a_turn(tmp_path: Path) -> None:
    in_turn = asyncio.Event()

    async def run() -> None:
        async with Suite(entries("served/local"), SMOKE, tmp_path / "log", lambda words: None) as suite:
            await suite.start()
            await suite.run({"execute": MEASURES["execute"]})
            in_turn.set()
            await suite.run({"streams": MEASURES["streams"]})

    running = asyncio.create_task(run())
    await in_turn.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_goals_are_held_against_ratios_round_by_round() -> None:
    results = Results()
    for ours, theirs, more in ((1.0, 40.0, 1.0), (2.0, 70.0, 2.0), (1.0, 10.0, 0.5)):
        results.add("served/runc", {"execute_ms": [ours]})
        results.add("aiodocker/runc", {"execute_ms": [theirs]})
        results.add("echo/served", {"execute_ms": [more]})
        results.add("embedded/runc", {"execute_ms": [ours / 2]})
    both = ["aiodocker/runc", "echo/served"]
    goals = [
        Goal("faster", "execute_ms", "served/runc", Kind.FASTER, 30, ["aiodocker/runc"]),
        Goal("much faster", "execute_ms", "served/runc", Kind.FASTER, 36, ["aiodocker/runc"]),
        Goal("against both", "execute_ms", "served/runc", Kind.TIMES, 0.03, both),
        Goal("absolute", "execute_ms", "served/runc", Kind.BELOW, 1, unit="ms"),
        Goal("unknown", "execute_ms", "pool/runc", Kind.BELOW, 1),
        Goal("of many", "execute_ms", "served/runc", Kind.BELOW, 1, full_only=True),
    ]
    found = outcomes(results.figures(), "full", goals)
    assert [outcome.met for outcome in found] == [True, False, True, True, None, True]
    assert outcomes(results.figures(), "quick", goals)[-1].met is None
    assert found[0].figure == 35
    assert found[2].figure == pytest.approx(2 / 72)
    assert [outcome.met_embedded for outcome in found] == [True, True, True, True, None, True]
    assert (found[0].embedded, found[4].embedded) == (70, None)


def test_figures_sum_up_all_rounds() -> None:
    figure = Figure.of([[1, 2, 3], [10], [5, 6]])
    assert (figure.median, figure.low, figure.high, figure.count) == (4, 1, 10, 6)
    assert figure.rounds == [2, 10, 5.5]
