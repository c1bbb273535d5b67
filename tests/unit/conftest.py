"""Unit tests start next to nothing: what is left is accounted for by file, not by test, which is many times faster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.leaks import Holdings, left_behind


@pytest.fixture(autouse=True, scope="module")
def file_leaves_nothing_behind(request: pytest.FixtureRequest, subreaper: None) -> Iterator[None]:
    """Fails a file of tests that leaves a process, an open file or a directory."""
    before, failures = Holdings.now(), request.session.testsfailed
    yield
    if request.session.testsfailed == failures:  # else tracebacks hold what their tests used
        left = left_behind(before)
        assert not left, "the tests left something behind"


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> None:
    """In place of the account of every single test."""
