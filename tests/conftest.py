"""What every test gets: a private place for temporary files, accounts of leaks, and a watch on the event loop."""

from __future__ import annotations

import asyncio
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

from agentic_isolation import AgenticWorkspace
from tests.engine import Engine
from tests.engine.plugin import has
from tests.support import engine_leaks, proc
from tests.support.blocking import watch_for_blocking_calls
from tests.support.eventually import eventually
from tests.support.fork_server import ForkServer
from tests.support.leaks import Holdings, left_behind
from tests.support.program import python_environment
from tests.support.service import ServedProcess
from tests.support.ways import WAYS, Way, Workspace

# No database of examples is written into the checkout, the same examples come every time, and slow machines are fine.
hypothesis.settings.register_profile("suite", database=None, deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


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
    with ServedProcess("--address", address, "--log-level", "warning", from_nothing=True) as served:
        if has(request.config, ["docker"]):
            asyncio.run(_use(served.target))
        yield served


async def _use(target: str) -> None:
    async with AgenticWorkspace.create(provider="docker", target=target) as workspace:
        assert [line async for line in workspace.stream("echo warm")] == ["warm"]


@pytest.fixture(scope="session")
def forks(subreaper: None, own_interpreter_first: None) -> Iterator[None]:
    """Services that tests start are forked from a process that has loaded theirs."""
    # gRPC reads it when it is loaded, which the command line has it do later.
    with ForkServer(python_environment(GRPC_VERBOSITY="NONE")) as server, server.sharing():
        yield


@pytest.fixture(scope="session")
def warm(request: pytest.FixtureRequest, service: ServedProcess, forks: None) -> None:
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


def pytest_collection_finish() -> None:
    """Spares the garbage collections of the accounts all that stays to the end: thousands of tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest, ground: None) -> Iterator[None]:
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
def leaves_nothing_in_the_engine(request: pytest.FixtureRequest, ground: None) -> Iterator[None]:
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
        request.getfixturevalue("no_task_is_left")


@pytest.fixture
async def no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()

    def surplus() -> set[asyncio.Task[object]]:
        return {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}

    yield
    try:
        await eventually(lambda: not surplus(), "every task has ended", within=10)
    finally:
        assert not surplus(), "the test left tasks"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test once for each way in, or for those of the places that it is about (`@pytest.mark.places`)."""
    if "way" not in metafunc.fixturenames:
        return
    about = {place for mark in metafunc.definition.iter_markers("places") for place in mark.args}
    ways = {name: marks for name, marks in WAYS.items() if not about or name.rpartition("-")[0] in about}
    metafunc.parametrize(
        "way",
        [pytest.param(name, marks=[getattr(pytest.mark, mark) for mark in marks]) for name, marks in ways.items()],
        indirect=True,
    )


@pytest.fixture
def way(request: pytest.FixtureRequest, service: ServedProcess) -> Way:
    """A way in; the test is run once for each."""
    return Way.of(request.param, target=service.target, service_pid=service.pid)


@pytest.fixture
async def ws(way: Way) -> AsyncIterator[Workspace]:
    """A workspace, once for each way in."""
    async with way.open() as workspace:
        yield workspace


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a path that is short enough for unix sockets, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="t-"))
    yield path
    shutil.rmtree(path)
