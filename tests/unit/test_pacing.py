"""How many places a pool keeps ready, and how fast it makes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_isolation_service.core.pacing import HALF_LIFE, LONGEST_WINDOW, Demand, pause_after, rest_after

sizes = st.tuples(st.integers(0, 20), st.integers(1, 20)).map(sorted)
gaps = st.lists(st.floats(0, 300), max_size=60)


@given(sizes, gaps, st.floats(0.001, 30))
def test_between_the_two_sizes(size: list[int], gaps: list[float], making: float) -> None:
    least, most = size[0], max(size[1], 1)
    demand = Demand(least, most)
    now = 1000.0
    assert demand.wanted(now) == least
    for gap in gaps:
        now += gap
        demand.ask(now)
        demand.made(making)
        assert max(least, min(most, 1)) <= demand.wanted(now) <= most
    assert demand.wanted(now + LONGEST_WINDOW + 20 * HALF_LIFE) == least


def test_grows_at_once_and_shrinks_slowly() -> None:
    demand = Demand(1, 8)
    for _ in range(6):
        demand.ask(100.0)
    assert demand.wanted(100.0) == 6
    assert demand.wanted(100.0 + HALF_LIFE / 4) >= 5
    assert 2 <= demand.wanted(100.0 + LONGEST_WINDOW + HALF_LIFE) <= 3


def test_steady_requests_keep_what_one_refill_of_all_takes() -> None:
    demand = Demand(0, 10)
    for _ in range(20):
        demand.made(1.0)
    for second in range(0, 300, 5):
        demand.ask(1000.0 + second)
    assert demand.wanted(1295.0) == 5  # ten places take 20 s, half of the time


def test_what_was_there_before_is_expected_again() -> None:
    demand = Demand(0, 4)
    demand.expect(9, 50.0)
    assert demand.wanted(50.0) == 4
    assert demand.wanted(50.0 + 3 * HALF_LIFE) == 0


def test_makes_places_half_of_the_time() -> None:
    assert rest_after(0.5) == 0.5


@pytest.mark.parametrize(("failures", "pause"), [(0, 0), (1, 1), (3, 5), (6, 60), (1000, 60)])
def test_pauses_longer_after_each_failure(failures: int, pause: float) -> None:
    assert pause_after(failures) == pause
