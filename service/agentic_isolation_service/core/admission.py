"""Whether there may be one more workspace: what is promised to those that there are, and to those under way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from agentic_isolation_service.core.holdings import Holdings
from agentic_isolation_service.core.quotas import SERVICE, Commitment, Quotas, Rate, exceeded

_RETRY_AFTER = 60.0
"""Seconds: a workspace has to end first, which is nothing that whoever asks should wait for unless it means to."""


class Admission:
    """Holds the quotas of workspaces. Nothing is kept here of those that are held: they are asked each time.

    Args:
        quotas: What there may be.
        holdings: The workspaces that there are.
        clock: Seconds of any clock.
    """

    def __init__(self, quotas: Quotas, holdings: Holdings, clock: Callable[[], float]) -> None:
        self._quotas = quotas
        self._holdings = holdings
        self._clock = clock
        self._under_way: list[tuple[str, Commitment]] = []
        self._creates = Rate("workspaces")

    @contextlib.contextmanager
    def of(self, tenant: str, wanted: Commitment) -> Iterator[None]:
        """Counts a workspace that is made for a tenant, until it is held.

        Raises:
            QuotaError: It would be more than the tenant, or the service, may have.
        """
        applying = self._quotas.for_tenant(tenant)
        for subject, quota in applying:
            promised = wanted + (self.promised() if subject == SERVICE else self.promised(tenant))
            if excess := promised.excess(quota):
                raise exceeded(subject, excess, "destroy some workspaces, or wait for their end", _RETRY_AFTER)
        rates = {subject: quota.creates_per_minute for subject, quota in applying}
        self._creates.take({subject: rate for subject, rate in rates.items() if rate is not None}, self._clock())
        entry = tenant, wanted
        self._under_way.append(entry)
        try:
            yield
        finally:
            self._under_way.remove(entry)

    def promised(self, tenant: str | None = None) -> Commitment:
        """Returns what is promised to a tenant's workspaces, or to everybody's; not what pools keep."""
        total = Commitment()
        for held in self._holdings:
            if tenant is None or held.owner == tenant:
                total += held.commitment
        for owner, wanted in self._under_way:
            if tenant is None or owner == tenant:
                total += wanted
        return total

    def has_room(self, kept: Commitment) -> bool:
        """Returns whether the service may promise so much, that pools keep, beside what it has promised."""
        return (self.promised() + kept).excess(self._quotas.service) is None
