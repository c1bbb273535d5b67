"""Three minutes of chaos: what clients were told holds, and nothing is lost, done twice or left behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.__main__ import NO_ENGINE
from tests.support.proc import no_subreaper
from tests.support.program import CHECKOUT, python_environment

MINUTES = 3
PATIENCE = 900
"""Seconds: a good run takes less than 300, one that finds something waits for what does not come, and a new machine
installs the engine first."""


@pytest.mark.docker
@pytest.mark.gvisor
@pytest.mark.xdist_group("chaos")
@pytest.mark.timeout(PATIENCE + 60)
def test_chaos() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--minutes", str(MINUTES), "--runtime", "both"]
    # The engine's daemons are nobody's children.
    with no_subreaper():
        done = subprocess.run(
            command, cwd=CHECKOUT, env=python_environment(), capture_output=True, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
    print(done.stdout)
    if done.returncode == NO_ENGINE:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
