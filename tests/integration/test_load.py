"""The load test works: services, workspaces and our own client as a generator, and figures become a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.load import ghz, report
from benchmarks.load.run import Plan, take
from benchmarks.load.taken import NotTaken, Taken
from tests.engine.plugin import has

MACHINE = dict.fromkeys(("cores", "cpu", "memory_gib", "system", "kernel", "python"), "any") | {"load_before": [0]}


def complaints(log: Path, config: pytest.Config) -> list[str]:
    """Returns what services have complained about, but that an engine is away which this machine does not have."""
    lines = log.read_text().splitlines()
    return lines if has(config, ["docker"]) else [line for line in lines if "the Docker Engine at" not in line]


async def test_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    monkeypatch.setattr(ghz, "PROGRAM", tmp_path / "ghz")
    plan = Plan(asks=["get", "execute-local", "stream-local"], in_flight=[3], seconds=0.2, envoy=False)
    told: list[str] = []
    runs = await take(plan, tmp_path / "log", told.append)
    ours = {run["ask"]: run for run in runs if run["generator"] == "python"}
    assert set(ours) == set(plan.asks)
    for run in ours.values():
        assert run["failed"] == 0
        assert run["count"] >= 3
        assert 0 < run["p50_ms"] <= run["p99_ms"]
        assert run["rate"] == pytest.approx(run["count"] / 0.2, rel=0.9)
    assert {run["missing"].split(":")[0] for run in runs if run["generator"] == "ghz"} == {
        f"there is no {tmp_path / 'ghz'}"
    }
    assert complaints(tmp_path / "log", pytestconfig) == []

    about = {"taken_at": "2026-01-01", "command": "make load", "machine": MACHINE, "engine": {}}
    document = {**about, "ghz": "", "envoy": "", "seconds": 0.2, "runs": runs}
    markdown = report.markdown(json.loads(json.dumps(document)))
    assert "| Execute `true`, local | 3 | straight |  |  |  | " in markdown
    assert "Missing: there is no" in markdown


def told_by_ghz(**changes: object) -> bytes:
    """A report as ghz 0.121 writes it, in part."""
    latencies = [{"percentage": share, "latency": share * 1_000_000} for share in (10, 25, 50, 75, 90, 95, 99)]
    codes = {"OK": 90, "Unavailable": 10}
    errors = {"rpc error: code = Unavailable desc = …": 10}
    told = {"count": 100, "total": 2_000_000_000, "latencyDistribution": latencies}
    return json.dumps({**told, "statusCodeDistribution": codes, "errorDistribution": errors, **changes}).encode()


def test_report_of_ghz() -> None:
    assert ghz.taken_of(told_by_ghz()) == Taken(rate=45, p50_ms=50, p99_ms=99, count=100, failed=10)
    with pytest.raises(NotTaken, match=r"every call failed: .*Unavailable"):
        ghz.taken_of(told_by_ghz(statusCodeDistribution={"Unavailable": 100}))
