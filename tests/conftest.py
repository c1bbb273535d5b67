"""What every test gets: a private place for temporary files, accounts of leaks, and a watch on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio

from agentic_isolation import AgenticWorkspace
from tests.engine import Engine
from tests.engine.plugin import has
from tests.support import engine_leaks, proc
from tests.support.blocking import watch_for_blocking_calls
from tests.support.eventually import eventually
from tests.support.leaks import Holdings, left_behind
from tests.support.service import ServedProcess
from tests.support.shared import SharedWorkspaces, is_shared
from tests.support.ways import WAYS, Way, Workspace

# No database of examples is written into the checkout, the same examples come every time, and slow machines are fine.
hypothesis.settings.register_profile("suite", database=None, deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


def pytest_collection_finish() -> None:
    """Spares the garbage collections of the accounts all that stays to the end: thousands of tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def private_temporary_directory() -> Iterator[Path]:
    """A directory for temporary files that this test process shares with no other; short, for unix sockets' sake."""
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    directory = Path(tempfile.mkdtemp(prefix="ai-"))
    tempfile.tempdir = os.environ["TMPDIR"] = str(directory)
    yield directory
    tempfile.tempdir = before
    del os.environ["TMPDIR"]
    if variable is not None:
        os.environ["TMPDIR"] = variable
    shutil.rmtree(directory)


@pytest.fixture(scope="session", autouse=True)
def own_interpreter_first() -> None:
    """Commands' python3 is this interpreter where they run on this machine: there may be slow wrappers on PATH."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


@pytest.fixture(scope="session", autouse=True)
def subreaper() -> None:
    """Whatever outlives its parents stays among this process's descendants."""
    proc.become_subreaper()


@pytest.fixture(scope="session", autouse=True)
def blocking_calls_raise() -> Iterator[None]:
    with watch_for_blocking_calls():
        yield


@pytest.fixture(scope="session")
def service(
    request: pytest.FixtureRequest, private_temporary_directory: Path, own_interpreter_first: None
) -> Iterator[ServedProcess]:
    """A service in a process of its own, for all tests of this test process. What it keeps open for good it has."""
    address = f"unix:{private_temporary_directory}/served.sock"
    with ServedProcess("--address", address, "--log-level", "warning") as served:
        if has(request.config, ["docker"]):
            asyncio.run(_use(served.target))
        yield served


async def _use(target: str) -> None:
    async with AgenticWorkspace.create(provider="docker", target=target) as workspace:
        assert [line async for line in workspace.stream("echo warm")] == ["warm"]


@pytest.fixture(scope="session")
def warm(request: pytest.FixtureRequest, service: ServedProcess) -> None:
    """Every way in was used once: what gRPC, asyncio and aiodocker keep open for good is no test's leak."""
    wanted = {item.callspec.params.get("way") for item in request.session.items if hasattr(item, "callspec")}

    async def use_all() -> None:
        for name in (
            name for name, needs in WAYS.items() if not needs or (name in wanted and has(request.config, needs))
        ):
            async with Way.of(name, target=service.target, service_pid=service.pid).open() as workspace:
                assert [line async for line in workspace.stream("echo warm")] == ["warm"]

    asyncio.run(use_all())


FAILED = pytest.StashKey[bool]()
ENGINE_PATIENCE = 20.0
"""Seconds that an engine may take to remove what has ended by itself."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture
def ground() -> None:
    """What is up before accounts are taken. Directories of tests that need more override it."""


@pytest.fixture
def stage(request: pytest.FixtureRequest, ground: None) -> None:
    """All that is up before accounts are taken."""
    if _shares(request.node):
        request.getfixturevalue("shared_workspace")


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest, stage: None) -> Iterator[None]:
    """Fails a test that leaves a process, an open file or a directory."""
    before = Holdings.now()
    yield
    if request.node.stash.get(FAILED, False):
        return  # its traceback holds what it used
    # Closed workspaces among the arguments would keep gRPC's poller, which goes with its last object.
    request.node.funcargs.clear()
    left = left_behind(before)
    assert not left, "the test left something behind"


@pytest.fixture
def leaves_nothing_in_the_engine(request: pytest.FixtureRequest, stage: None) -> Iterator[None]:
    """Fails a test of containers that leaves a container, a volume or a network."""
    if not any(request.node.get_closest_marker(name) for name in ("docker", "gvisor")):
        yield
        return
    engine: Engine = request.getfixturevalue("engine")
    before = engine_leaks.held(engine)
    yield
    if request.node.stash.get(FAILED, False):
        return
    deadline = time.monotonic() + ENGINE_PATIENCE
    while (surplus := engine_leaks.held(engine) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not surplus, "the test left something in the engine"


@pytest.fixture(autouse=True)
def ends_its_tasks(request: pytest.FixtureRequest, leaves_nothing_behind: None) -> None:
    """Fails an asynchronous test that leaves a task."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        shares = _shares(request.node)
        request.getfixturevalue("no_task_is_left_to_others" if shares else "no_task_is_left")


@pytest.fixture
async def no_task_is_left() -> AsyncIterator[None]:
    async with _tasks_end():
        yield


@pytest_asyncio.fixture(loop_scope="session")
async def no_task_is_left_to_others() -> AsyncIterator[None]:
    async with _tasks_end():
        yield


@contextlib.asynccontextmanager
async def _tasks_end() -> AsyncIterator[None]:
    before = asyncio.all_tasks()

    def surplus() -> set[asyncio.Task[object]]:
        return {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}

    yield
    try:
        await eventually(lambda: not surplus(), "every task has ended", within=10)
    finally:
        assert not surplus(), "the test left tasks"


_one_loop = pytest.mark.asyncio(loop_scope="session")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test once for each way in, or for those of the places that it is about (`@pytest.mark.places`)."""
    if "way" not in metafunc.fixturenames:
        return
    about = {place for mark in metafunc.definition.iter_markers("places") for place in mark.args}
    ways = {name: marks for name, marks in WAYS.items() if not about or name.rpartition("-")[0] in about}
    shares = "ws" in metafunc.fixturenames and not metafunc.definition.get_closest_marker("own_workspace")

    def marks_of(name: str) -> list[pytest.MarkDecorator]:
        marks = [getattr(pytest.mark, mark) for mark in ways[name]]
        return [*marks, _one_loop] if shares and is_shared(name) else marks

    metafunc.parametrize("way", [pytest.param(name, marks=marks_of(name)) for name in ways], indirect=True)


def _shares(item: pytest.Item) -> bool:
    """Whether a test gets a workspace that others have had before it, in the one event loop of them all."""
    marker = item.get_closest_marker("asyncio")
    return marker is not None and marker.kwargs.get("loop_scope") == "session"


@pytest.fixture
def way(request: pytest.FixtureRequest, service: ServedProcess) -> Way:
    """A way in; the test is run once for each."""
    return Way.of(request.param, target=service.target, service_pid=service.pid)


@pytest.fixture
def ws(request: pytest.FixtureRequest, way: Way) -> Workspace:
    """A workspace as new, once for each way in: of the test's own, or a container that others had before."""
    workspace: Workspace = request.getfixturevalue("shared_workspace" if _shares(request.node) else "own_workspace")
    return workspace


@pytest.fixture
async def own_workspace(way: Way) -> AsyncIterator[Workspace]:
    async with way.open() as workspace:
        yield workspace


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_workspaces(warm: None) -> AsyncIterator[SharedWorkspaces]:
    shared = SharedWorkspaces()
    yield shared
    await shared.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def shared_workspace(
    request: pytest.FixtureRequest, shared_workspaces: SharedWorkspaces, way: Way
) -> AsyncIterator[Workspace]:
    yield await shared_workspaces.get(way)
    if request.node.stash.get(FAILED, False):
        await shared_workspaces.discard(way.name)
    else:
        await shared_workspaces.give_back(way)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a path that is short enough for unix sockets, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="t-"))
    yield path
    shutil.rmtree(path)
