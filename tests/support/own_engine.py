"""An engine that tests may break while others use the shared one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests import engine as engines
from tests.engine import Engine, EngineError
from tests.support import proc

GROUP = pytest.mark.xdist_group("docker-engines")
"""For tests that use it: one after the other, in one test process."""


@contextlib.contextmanager
def own_engine() -> Iterator[Engine]:
    """Brings it up, and takes it down at the end. Skips the test where there can be none."""
    with contextlib.ExitStack() as stack:
        try:
            with proc.no_subreaper():
                engine = stack.enter_context(engines.session("faults"))
        except EngineError as error:
            pytest.skip(str(error))
        yield engine


def bring_up(engine: Engine) -> None:
    """Starts it again if a test has ended it. Its daemons are no leak of the test's."""
    with proc.no_subreaper():
        engine.start()
