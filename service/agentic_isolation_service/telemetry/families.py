"""What was counted, as Prometheus takes it."""

from __future__ import annotations

import functools
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from agentic_isolation_service.guest.counts import Distribution

_PREFIX = "agentic_isolation_"


def gauge(name: str, words: str, *labels: str) -> GaugeMetricFamily:
    """Returns a metric that goes up and down, without samples yet."""
    return GaugeMetricFamily(_PREFIX + name, words, labels=labels)


def counter(name: str, words: str, *labels: str) -> CounterMetricFamily:
    """Returns a metric that only goes up, without samples yet."""
    return CounterMetricFamily(_PREFIX + name, words, labels=labels)


def histogram(name: str, words: str, *labels: str) -> HistogramMetricFamily:
    """Returns a metric of distributions, without samples yet."""
    return HistogramMetricFamily(_PREFIX + name, words, labels=labels)


def add(family: HistogramMetricFamily, labels: list[str], distribution: Distribution) -> None:
    """Gives a metric of distributions a sample."""
    counts = accumulate(distribution.counts)
    family.add_metric(labels, list(zip(_written(distribution.bounds), counts, strict=True)), distribution.sum)


@functools.cache
def _written(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*map(floatToGoString, bounds), "+Inf")
