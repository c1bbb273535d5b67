"""`[cluster]`: what the service is among others behind one proxy."""

from __future__ import annotations

from dataclasses import dataclass

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.core.replicas import check_name
from agentic_isolation_service.settings.tables import checked, within


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """A replica, and the proxies before it."""

    replica: str = ""
    """Its name; empty: it is the only one."""
    proxies: frozenset[str] = frozenset()
    """Identities of proxies. They prove nothing of the callers behind them, who have to show something of their own."""


def cluster_of(content: object) -> ClusterSettings:
    """Returns what table `[cluster]` says.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it, as `cluster.replica`.
    """
    table = within("cluster", lambda: checked(content, {"replica": (str,), "proxies": (list,)}))
    if "replica" in table:
        within("cluster.replica", lambda: check_name(table["replica"]))
    proxies = table.pop("proxies", [])
    if not all(isinstance(proxy, str) and proxy for proxy in proxies):
        raise InvalidArgumentError(
            "it holds something else than identities; they are strings, as spiffe://example.org/envoy",
            field="cluster.proxies",
        )
    return ClusterSettings(proxies=frozenset(proxies), **table)
