"""Workspaces, their commands and guests, and pools in metrics: what the core has counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import Metric

from agentic_isolation.models import PoolInfo, WorkspaceState
from agentic_isolation_service.core.caller import OPERATOR
from agentic_isolation_service.core.counts import ProviderCounts
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.telemetry.families import add, counter, gauge, histogram

_STATES = (WorkspaceState.READY, WorkspaceState.LOST, WorkspaceState.DESTROYING)
_CONTENTS = ("input", "output", "upload", "download")
_ENDS = ("lease", "idle", "lifetime")
_POOLS = {
    "ready": "Workspaces that a pool has ready.",
    "wanted": "Workspaces that it should have ready, by what was asked of it.",
    "min": "Workspaces that it has ready at least.",
    "max": "Workspaces that it has ready at most.",
    "refilling": "1 while a workspace is made for it.",
    "failing": "1 while none can be made for it; the log and GetServerInfo say why.",
}
_Providers = Iterable[tuple[str, ProviderCounts]]


def families_of(workspaces: Workspaces) -> Iterator[Metric]:
    """Yields how things are, and what has gone on. No label is a workspace, an image, or a client's word."""
    providers = workspaces.counts.providers
    yield from _census(workspaces.census(), providers)
    most = gauge("workspaces_max", "As many workspaces as there may be.")
    most.add_metric([], workspaces.max_workspaces)
    yield most
    for family in (_creates, _ends, _commands, _guests):
        yield from family(providers.items())
    yield from _pools(workspaces.describe_pools(OPERATOR))


def _census(census: Counter[tuple[str, WorkspaceState, str]], providers: Iterable[str]) -> Iterator[Metric]:
    states: Counter[tuple[str, WorkspaceState]] = Counter()
    owners: Counter[str] = Counter()
    for (provider, state, owner), count in census.items():
        states[provider, state] += count
        owners[owner] += count
    by_state = gauge("workspaces", "Workspaces that are there, without those of pools.", "provider", "state")
    for provider in {*providers, *(provider for provider, _ in states)}:
        for state in _STATES:
            by_state.add_metric([provider, state.value], states[provider, state])
    by_owner = gauge("tenant_workspaces", "Workspaces of tenants that are there.", "tenant")
    for owner, count in owners.items():
        if owner:
            by_owner.add_metric([owner], count)
    yield from (by_state, by_owner)


def _creates(providers: _Providers) -> Iterator[Metric]:
    seconds = histogram(
        "create_duration_seconds",
        "How long workspaces took that were made for a request (cold), or came out of a pool (pool).",
        "provider",
        "origin",
    )
    for name, counts in providers:
        add(seconds, [name, "cold"], counts.created)
        add(seconds, [name, "pool"], counts.claimed)
    yield seconds


def _ends(providers: _Providers) -> Iterator[Metric]:
    expired = counter("workspaces_expired", "Workspaces whose time was over, by what ended it.", "provider", "end")
    taken_up = counter("workspaces_taken_up", "Workspaces of the last process, when this one began.", "provider")
    adopted = counter("workspaces_adopted", "Workspaces that were found and not written down.", "provider")
    for name, counts in providers:
        for end in _ENDS:
            expired.add_metric([name, end], counts.expired[end])
        taken_up.add_metric([name], counts.taken_up)
        adopted.add_metric([name], counts.adopted)
    yield from (expired, taken_up, adopted)


def _commands(providers: _Providers) -> Iterator[Metric]:
    seconds = histogram(
        "command_duration_seconds",
        "How long commands ran whose end was told to a client, by what ended them.",
        "provider",
        "cause",
    )
    transferred = counter(
        "transferred_bytes",
        "Bytes of commands' input and output, and of files in (upload) and out (download).",
        "provider",
        "content",
    )
    for name, counts in providers:
        for cause, distribution in counts.guests.commands.items():
            add(seconds, [name, cause.value], distribution)
        for content in _CONTENTS:
            transferred.add_metric([name, content], counts.guests.traffic[content])
    yield from (seconds, transferred)


def _guests(providers: _Providers) -> Iterator[Metric]:
    reconnects = counter("guest_reconnects", "Links to guests in place of one that had ended.", "provider")
    failures = counter("guest_link_failures", "Links to guests that could not be made.", "provider")
    lost = counter("guests_lost", "Guests that were gone, or broke the protocol, before their time.", "provider")
    for name, counts in providers:
        reconnects.add_metric([name], counts.guests.reconnects)
        failures.add_metric([name], counts.guests.link_failures)
        lost.add_metric([name], counts.guests.lost)
    yield from (reconnects, failures, lost)


def _pools(pools: Iterable[PoolInfo]) -> Iterator[Metric]:
    gauges = [gauge(f"pool_{name}", words, "pool", "provider") for name, words in _POOLS.items()]
    claims = counter(
        "pool_claims", "Requests that a pool had a workspace for (hit), or none (miss).", "pool", "provider", "outcome"
    )
    for pool in pools:
        labels = [pool.name, pool.provider]
        values = (pool.ready, pool.wanted, pool.min, pool.max, pool.refilling, bool(pool.last_error))
        for family, value in zip(gauges, values, strict=True):
            family.add_metric(labels, value)
        claims.add_metric([*labels, "hit"], pool.hits)
        claims.add_metric([*labels, "miss"], pool.misses)
    yield from (*gauges, claims)
