"""An engine that tests may break while others use the shared one.

Such tests have the mark WAITS (turns.py): they run one after the other in one test process, and most of their time
engines start and end.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

import pytest

from tests import engine as engines
from tests.engine import Engine, EngineError
from tests.engine.engine import state
from tests.support import proc

_NAMES = [f"faults-{number}" for number in range(1, 9)]


@contextlib.contextmanager
def own_engine() -> Iterator[Engine]:
    """Brings it up, and takes it down at the end. Skips the test where there can be none."""
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(_free_name())
        try:
            with proc.no_subreaper():
                engine = stack.enter_context(engines.session(name))
        except EngineError as error:
            pytest.skip(str(error))
        yield engine


@contextlib.contextmanager
def _free_name() -> Iterator[str]:
    """Yields a name that no other test run on this machine, of whichever checkout, uses meanwhile."""
    directory = state()
    directory.mkdir(parents=True, exist_ok=True)
    for name in _NAMES:
        with (directory / f"{name}.taken").open("ab") as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield name
            return
    pytest.skip(f"{len(_NAMES)} other test runs break engines on this machine: wait for one to end")


def bring_up(engine: Engine) -> None:
    """Starts it again if a test has ended it. Its daemons are no leak of the test's."""
    with proc.no_subreaper():
        engine.start()
