"""The examples: they work in a container where there is an engine, else in a directory, and say which."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.program import CHECKOUT, python_environment


def demo(**environment: str) -> tuple[str, dict[str, object]]:
    """Runs the demo and returns what it says of the isolation, and the agent's last event."""
    done = subprocess.run(
        [sys.executable, CHECKOUT / "examples" / "demo.py"],
        env=python_environment(**environment),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr, json.loads(done.stdout.splitlines()[-1])


def test_without_an_engine_it_says_that_nothing_isolates() -> None:
    said, last = demo(DOCKER_HOST="unix:///nowhere/docker.sock")
    assert "unix:///nowhere/docker.sock" in said
    assert "NOT ISOLATED" in said
    assert (last["type"], last["success"]) == ("final", True)


@pytest.mark.docker
def test_with_an_engine_it_works_in_a_container() -> None:
    said, last = demo()
    assert "a container under run" in said
    assert "user 1000:1000, no capabilities, read-only root, network none" in said
    assert (last["type"], last["success"]) == ("final", True)


@pytest.mark.docker
def test_data_analysis_downloads_the_plot_that_it_has_drawn(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    command = [sys.executable, str(CHECKOUT / "examples" / "data_analysis.py"), str(plot)]
    done = subprocess.run(command, env=python_environment(), capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert "means.py failed: ValueError" in done.stdout
    assert not done.stderr  # no word about a directory that is not isolated
    assert plot.read_text().startswith("<svg")
    assert plot.read_text().count("<polyline") == 2
