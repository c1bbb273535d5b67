"""pytest plugin: an engine for the tests marked `docker` or `gvisor`, up before the first test and down after the last.

It comes up between collection and the first fixture: the first time that takes a minute or two, more than a test may
take, and a daemon must not become a child of the test process, which collects orphans and counts what they hold.
"""

import contextlib

import pytest

from tests.engine.engine import Engine, session
from tests.engine.errors import EngineError

_ENGINE = pytest.StashKey[Engine | EngineError]()
_DOWN = pytest.StashKey[contextlib.ExitStack]()


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Engine:
    """The engine; for tests marked `docker` or `gvisor`."""
    engine = request.config.stash[_ENGINE]
    assert isinstance(engine, Engine)
    return engine


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.getoption("collectonly") and any(_needs_engine(item) for item in session.items):
        _bring_up(session.config)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if _needs_engine(item):
        engine = item.config.stash[_ENGINE]
        if isinstance(engine, EngineError):
            pytest.skip(str(engine))
        if item.get_closest_marker("gvisor") and "runsc" not in engine.runtimes:
            pytest.skip(f"{engine.docker_host} has no runtime `runsc`: install gVisor and register it in daemon.json")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if stack := session.config.stash.get(_DOWN, None):
        stack.close()


def _needs_engine(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("docker", "gvisor"))


def _bring_up(config: pytest.Config) -> None:
    stack = config.stash[_DOWN] = contextlib.ExitStack()
    try:
        config.stash[_ENGINE] = stack.enter_context(session())
    except EngineError as error:
        config.stash[_ENGINE] = error
