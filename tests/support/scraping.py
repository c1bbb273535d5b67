"""Reading a service's metrics as Prometheus does."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

_ANNOUNCED = re.compile(r'metrics are at (http://[^\s"]+)')


@dataclass(frozen=True, slots=True)
class Scrape:
    """What the metrics were at a moment."""

    families: Mapping[str, Metric]

    @classmethod
    async def of(cls, log: str) -> Scrape:
        """Scrapes the service that has written this log."""
        return cls(await asyncio.to_thread(_scraped, url_in(log)))

    def value(self, name: str, **labels: str) -> float:
        """Returns the sum of the samples of a name that have these labels; 0 where there is none."""
        return sum(
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def url_in(log: str) -> str:
    """Returns where a service serves its metrics, as it says in its log."""
    announced = _ANNOUNCED.search(log)
    assert announced is not None, f"no metrics are announced in {log!r}"
    return announced[1]


def text_at(url: str) -> str:
    """Returns what is served there, as it is."""
    with urllib.request.urlopen(url, timeout=10) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        return str(response.read().decode())


def _scraped(url: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text_at(url))}
