"""What has gone on in a service, counted as it happens and read by whoever wants to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from agentic_isolation_service.guest.counts import Distribution, GuestCounts

SECONDS_OF_CREATES = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Up to these the durations of creates are told apart."""


@dataclass(slots=True, eq=False)
class ProviderCounts:
    """What has gone on with one provider's workspaces since this process began. It only grows."""

    guests: GuestCounts = field(default_factory=GuestCounts)
    created: Distribution = field(default_factory=lambda: Distribution(SECONDS_OF_CREATES))
    """Seconds that workspaces have taken which were made for a request."""
    claimed: Distribution = field(default_factory=lambda: Distribution(SECONDS_OF_CREATES))
    """Seconds that workspaces have taken which came out of a pool."""
    taken_up: int = 0
    """Workspaces of an earlier process that were written down."""
    adopted: int = 0
    """Workspaces that were there and not written down."""
    expired: Counter[str] = field(default_factory=Counter)
    """Workspaces whose time was over, by what ended it: `lease`, `idle` or `lifetime`."""

    def count_create(self, seconds: float, *, pooled: bool) -> None:
        """Counts a workspace that somebody has got; `pooled`: out of a pool."""
        (self.claimed if pooled else self.created).add(seconds)


class Counts:
    """What has gone on with the workspaces of all providers."""

    def __init__(self) -> None:
        self._of: dict[str, ProviderCounts] = {}

    @property
    def providers(self) -> Mapping[str, ProviderCounts]:
        """By name, those that were used."""
        return self._of

    def of(self, provider: str) -> ProviderCounts:
        """Returns the counts of a provider, to be added to."""
        if provider not in self._of:
            self._of[provider] = ProviderCounts()
        return self._of[provider]
