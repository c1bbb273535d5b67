"""pytest plugin: an engine for the tests marked `docker` or `gvisor`, up before the first test and down after the last.

It comes up between collection and the first fixture: the first time that takes a minute or two, more than a test may
take, and a daemon must not become a child of the test process, which collects orphans and counts what they hold.
"""

import contextlib
import uuid
from collections.abc import Collection

import pytest

from agentic_isolation_service.config import IMAGE_VARIABLE, LABELS_VARIABLE
from tests.engine.engine import Engine, session
from tests.engine.errors import EngineError

_ENGINE = pytest.StashKey[Engine | EngineError]()
_DOWN = pytest.StashKey[contextlib.ExitStack]()
RUN_LABEL = f"agentic-isolation.test-run={uuid.uuid4().hex}"
"""On everything that this test process has created in an engine, in place of what others have there."""


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Engine:
    """The engine; for tests marked `docker` or `gvisor`."""
    engine = request.config.stash[_ENGINE]
    assert isinstance(engine, Engine)
    return engine


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.getoption("collectonly") and any(_needs(item) for item in session.items):
        _bring_up(session.config)


def has(config: pytest.Config, needs: Collection[str]) -> bool:
    """Returns whether the machine has what these markers stand for; only after collection."""
    return not _lack(config, needs)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if lack := _lack(item.config, _needs(item)):
        pytest.skip(lack)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if stack := session.config.stash.get(_DOWN, None):
        stack.close()


def _needs(item: pytest.Item) -> list[str]:
    return [name for name in ("docker", "gvisor") if item.get_closest_marker(name)]


def _lack(config: pytest.Config, needs: Collection[str]) -> str:
    """Returns what is missing of what the markers stand for, and how to get it."""
    if not needs:
        return ""
    engine = config.stash.get(_ENGINE, None)
    if engine is None:
        return "none of the tests that are run needs an engine"
    if isinstance(engine, EngineError):
        return str(engine)
    if "gvisor" in needs and "runsc" not in engine.runtimes:
        return f"{engine.docker_host} has no runtime `runsc`: install gVisor and register it in daemon.json"
    return ""


def _bring_up(config: pytest.Config) -> None:
    stack = config.stash[_DOWN] = contextlib.ExitStack()
    try:
        engine = config.stash[_ENGINE] = stack.enter_context(session())
    except EngineError as error:
        config.stash[_ENGINE] = error
        return
    # As a user configures it, so that services in processes of their own find the engine too.
    environment = stack.enter_context(pytest.MonkeyPatch.context())
    environment.setenv("DOCKER_HOST", engine.docker_host)
    environment.setenv(IMAGE_VARIABLE, engine.images.python)
    environment.setenv(LABELS_VARIABLE, RUN_LABEL)
