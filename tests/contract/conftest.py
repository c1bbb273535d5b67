"""Tests that run real workspaces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.service import ServedProcess


@pytest.fixture(autouse=True)
def nothing_in_the_engine(leaves_nothing_in_the_engine: None) -> None:
    """Every test here that makes containers is looked after."""


@pytest.fixture
def ground(warm: None, service: ServedProcess) -> Iterator[None]:
    """Services and every way in are up before accounts are taken, and nothing that a client does is worth a warning."""
    before = len(service.log)
    yield
    complaints = service.log[before:]
    assert not complaints, "the service has complained"
