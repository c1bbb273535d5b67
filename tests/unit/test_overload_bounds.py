"""Whose calls are refused under pressure, and when. Every moment is given: nothing here waits."""

from __future__ import annotations

import pytest

from agentic_isolation import OverloadedError
from agentic_isolation_service.core.overload import (
    BURST,
    BUSY,
    CROWD,
    FRESH,
    LAG,
    LARGE,
    PATIENCE,
    SPARED,
    WAIT,
    Load,
    Work,
)

TICK = 0.05


class Clock:
    def __init__(self, load: Load) -> None:
        self.load = load
        self.now = 100.0

    def pass_time(self, seconds: float, *, lag: float = 0.0, wait: float = 0.0, busy: float = 0.0) -> None:
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            self.load.look(self.now, lag=lag, wait=wait, busy=busy)

    def begin(self, tenant: str, count: int = 1) -> list[Work]:
        return [self.load.begin(tenant, self.now) for _ in range(count)]


@pytest.fixture
def load() -> Load:
    return Load()


@pytest.fixture
def clock(load: Load) -> Clock:
    return Clock(load)


def test_without_pressure_nothing_is_refused(load: Load, clock: Clock) -> None:
    clock.begin("a", 1000)
    clock.pass_time(10, lag=LAG, wait=WAIT)
    clock.begin("a", 1000)
    assert load.bound is None
    assert load.refused == 0


@pytest.mark.parametrize(
    "pressure",
    [{"lag": 2 * LAG}, {"wait": 2 * WAIT}, {"busy": 1.0}],
    ids=["a late loop", "waiting calls", "a busy loop and a crowd"],
)
def test_a_burst_is_no_overload(load: Load, clock: Clock, pressure: dict[str, float]) -> None:
    clock.begin("a", 100)
    for _ in range(3):
        clock.pass_time(PATIENCE - TICK, **pressure)
        clock.pass_time(TICK)
    assert not load.bound
    clock.begin("a", 100)
    clock.pass_time(PATIENCE + 2 * TICK, **pressure)
    assert load.bound


def test_a_busy_loop_without_a_crowd_is_no_overload(load: Load, clock: Clock) -> None:
    for _ in range(10):
        works = clock.begin("a", CROWD)
        clock.pass_time(FRESH, busy=1.0)
        for work in works:
            load.end(work)
    assert load.bound is None


def press(clock: Clock, seconds: float) -> None:
    clock.pass_time(seconds, wait=2 * WAIT)


def test_the_busiest_tenant_is_refused_first_and_one_with_few_calls_gets_through(load: Load, clock: Clock) -> None:
    press(clock, PATIENCE - TICK)
    clock.begin("busy", 50)
    clock.begin("half", CROWD // 2 - 1)
    while load.bound is None:
        press(clock, TICK)
    with pytest.raises(OverloadedError):
        clock.begin("busy")
    clock.begin("half")
    press(clock, TICK)
    with pytest.raises(OverloadedError):
        clock.begin("half")
    press(clock, 1)
    clock.begin("new", SPARED)
    with pytest.raises(OverloadedError):
        clock.begin("new")


def test_a_rush_into_a_busy_loop_is_bounded_at_once(load: Load, clock: Clock) -> None:
    clock.begin("a", 10)
    clock.pass_time(TICK, busy=1.0)
    clock.begin("a", BURST - 10)
    with pytest.raises(OverloadedError):
        clock.begin("a")
    clock.begin("b", SPARED)
    clock.pass_time(TICK, busy=BUSY)
    clock.begin("a")


def test_what_has_gone_on_for_long_is_not_what_keeps_the_service_busy(load: Load, clock: Clock) -> None:
    clock.begin("quiet", 500)
    clock.pass_time(FRESH + TICK)
    clock.begin("busy", 50)
    press(clock, PATIENCE + 2 * TICK)
    clock.begin("quiet", 10)
    with pytest.raises(OverloadedError):
        clock.begin("busy")


def test_the_bound_rises_when_pressure_goes_and_is_lifted(load: Load, clock: Clock) -> None:
    clock.begin("a", 100)
    press(clock, 2)
    lowest = load.bound
    assert lowest == SPARED
    clock.pass_time(1)
    assert (load.bound or 0) > lowest
    clock.pass_time(1.5)
    assert not load.bound
    clock.begin("a", 100)


def test_what_is_spared_is_never_refused(load: Load, clock: Clock) -> None:
    clock.begin("a", 100)
    press(clock, 2)
    assert [load.begin("a", clock.now, spared=True).tenant for _ in range(1000)]


def test_there_is_an_end_to_how_many_calls_may_be_under_way() -> None:
    load = Load(most=10)
    works = [load.begin("a", 0.0) for _ in range(10)]
    with pytest.raises(OverloadedError, match="10 calls under way"):
        load.begin("a", 0.0)
    few = [load.begin("b", 0.0) for _ in range(5)]  # its share of them
    with pytest.raises(OverloadedError):
        load.begin("b", 0.0)
    for work in works + few:
        load.end(work)
    load.begin("a", 0.0)


def test_what_is_spared_is_bounded_as_well() -> None:
    """Whoever waits for a process, as often as it likes, must not take the service down for everybody."""
    load = Load(most=10)
    for _ in range(20):
        load.begin("a", 0.0, spared=True)
    with pytest.raises(OverloadedError, match="20 calls under way"):
        load.begin("a", 0.0, spared=True)
    load.begin("b", 0.0, spared=True)


def test_who_leaves_answers_waiting_is_refused_until_they_are_taken() -> None:
    load = Load(most_unsent=10 * LARGE)
    idle = [load.begin("idle", 0.0) for _ in range(11)]
    for work in idle[:9]:
        load.answer(work, LARGE)
    load.begin("idle", 0.0)
    load.answer(idle[9], LARGE)
    with pytest.raises(OverloadedError, match=f"{10 * LARGE} bytes of answers"):
        load.begin("idle", 0.0)
    prompt = load.begin("prompt", 0.0)
    load.answer(prompt, LARGE)
    load.begin("prompt", 0.0)
    load.begin("idle", 0.0, spared=True)
    load.answer(idle[10], 10 * LARGE)
    with pytest.raises(OverloadedError):
        load.begin("idle", 0.0, spared=True)
    for work in (*idle, prompt):
        load.end(work)
    load.begin("idle", 0.0)


def test_small_answers_do_not_count() -> None:
    load = Load(most_unsent=1)
    load.answer(load.begin("a", 0.0), LARGE - 1)
    load.begin("a", 0.0)


def test_the_more_are_refused_the_later_they_are_told_to_come_back(load: Load, clock: Clock) -> None:
    clock.begin("a", 100)
    press(clock, 2)

    def refuse(count: int) -> float:
        """Begins calls until so many were refused; returns the longest time that one was told to wait."""
        delays: list[float] = []
        while len(delays) < count:
            try:
                clock.begin("a")
            except OverloadedError as error:
                delays.append(error.retry_after or 0.0)
        return max(delays)

    assert refuse(3) <= 0.5
    for _ in range(40):
        refuse(50)
        press(clock, TICK)
    assert 2 < refuse(50) <= 5


def test_nothing_is_left_counted(load: Load, clock: Clock) -> None:
    works = [work for tenant in "abc" for work in clock.begin(tenant, 50)]
    clock.pass_time(FRESH / 2)
    for work in works[::2]:
        load.end(work)
    press(clock, 2 * FRESH)
    for work in works[1::2]:
        load.end(work)
    assert len(load) == 0
    assert not load._fresh
    assert not load._under_way
    load.rest()
    assert load.bound is None
    assert not load._begun
