"""pytest plugin: tests that only wait run beside those that work, and never too many of these at a time.

A test with the mark WAITS is about seconds that pass, and hardly needs a processor. xdist hands those of the contract
to one worker, and all others to another one. Every other test takes a turn, of which there are two fewer than there are
workers: more of them at a time would only keep each other from the processors, as fewer would leave one idle.
"""

import contextlib
import fcntl
import time
from collections.abc import Generator, Iterator
from typing import BinaryIO

import pytest

WAITS = pytest.mark.xdist_group("waits")
_WAITING = 2
"""Workers that have tests that wait."""
_LOOK = 0.02
"""Seconds between two looks for a turn."""


class _Turns:
    """The turns of all workers: a byte each of one file, locked while it is somebody's.

    Args:
        file: The file. It stays open, as tests account for the files that they open.
        count: How many turns there are.
    """

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file = file
        self._count = count

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Waits for a turn, and has it until it is left or the process ends."""
        while (turn := self._taken()) is None:
            time.sleep(_LOOK)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, turn)

    def _taken(self) -> int | None:
        for turn in range(self._count):
            with contextlib.suppress(BlockingIOError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, turn)
                return turn
        return None


_TURNS = pytest.StashKey[_Turns]()
_NODE_ID = pytest.StashKey[str]()


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    workers: int = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers > 1 and config.cache is not None:
        file = (config.cache.mkdir("turns") / "file").open("ab", buffering=0)
        config.add_cleanup(file.close)
        config.stash[_TURNS] = _Turns(file, max(workers - _WAITING, 1))


# Before xdist adds the name of a test's group to its own.
def pytest_itemcollected(item: pytest.Item) -> None:
    item.stash[_NODE_ID] = item.nodeid
    if _waits(item) and item.path.parent.name == "contract":
        item.add_marker(pytest.mark.xdist_group("contract"))  # xdist puts the names together


def _waits(item: pytest.Item) -> bool:
    return any(mark == WAITS.mark for mark in item.iter_markers(WAITS.name))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    vars(report)["name_alone"] = item.stash[_NODE_ID]
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Reports a test of a worker's under the name that it has without xdist: else --last-failed would not know it."""
    if hasattr(report, "node"):
        report.nodeid = vars(report).get("name_alone", report.nodeid)


# Outermost: the time that a test waits for its turn is none of its time limit.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    turns = item.config.stash.get(_TURNS, None)
    if turns is None or _waits(item):
        return (yield)
    with turns.one():
        return (yield)
