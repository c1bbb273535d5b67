"""The network of the workspaces that have one: one bridge per engine, with a firewall on the engine's host.

Docker's own options cannot keep a workspace from metadata addresses or from the host, and a route in the workspace's
namespace is no obstacle: any process may bind a socket to another interface. So an errand with the host's network puts
up an nftables table (guest/internal/firewall), which holds under every runtime. It also does the address translation
that Docker would: without the table there is no way out.

Network and table belong to the engine and are shared by all services that use it. Neither is ever removed by them, and
both are harmless without workspaces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiodocker

from agentic_isolation.errors import IsolationUnavailableError
from agentic_isolation_service.config import DNS_VARIABLE
from agentic_isolation_service.providers.docker.container import ERRAND, LABEL, ErrandPlan
from agentic_isolation_service.providers.docker.creation import Sweeper
from agentic_isolation_service.providers.docker.errand import ErrandError, run_errand

NETWORK = LABEL
"""The network's name."""
BRIDGE = "agentic0"
"""Its interface on the engine's host."""
_FIELD = "limits.network"
_NETWORK_LABEL = "network"
_OPTION = "com.docker.network.bridge."
_TRUSTED_FOR = 10.0
"""Seconds until the firewall is put up again: a host that was rebooted meanwhile does not have it."""
_RACE_ATTEMPTS = 20
_RACE_POLL = 0.1


@dataclass(frozen=True, slots=True)
class WorkspaceNetwork:
    """A network with its firewall up."""

    id: str
    resolvers: tuple[str, ...]
    """The name servers that workspaces ask."""


class Networks:
    """Makes and guards the network of one engine.

    Args:
        resolvers: Name servers of workspaces; none: those that the engine gives containers on its default bridge.
        name: The network's name.
        bridge: Its interface on the engine's host.
    """

    def __init__(self, resolvers: Sequence[str], *, name: str = NETWORK, bridge: str = BRIDGE) -> None:
        self._name, self._bridge = name, bridge
        self._resolvers = tuple(resolvers)
        self._ready: tuple[float, WorkspaceNetwork] | None = None
        self._lock = asyncio.Lock()
        self._sweeper = Sweeper({LABEL: ERRAND})

    async def ensure(self, client: aiodocker.Docker, errand: ErrandPlan) -> WorkspaceNetwork:
        """Returns the network, with a firewall that was up a moment ago.

        Args:
            client: The engine.
            errand: How to run errands there.

        Raises:
            IsolationUnavailableError: It cannot be had; the error says what is missing.
        """
        now = asyncio.get_running_loop().time
        async with self._lock:
            ready = self._ready
            # Where no workspace has it just now, somebody who prunes the engine's networks has taken it away.
            if ready is None or now() - ready[0] > _TRUSTED_FOR or not await _is_there(client, ready[1]):
                self._ready = None
                network = await self._make(client, errand)
                self._ready = ready = now(), network
            return ready[1]

    async def _make(self, client: aiodocker.Docker, errand: ErrandPlan) -> WorkspaceNetwork:
        found = await self._ensure_network(client)
        await self._sweeper.sweep(client)
        resolvers = self._resolvers or await _resolvers_of(client, errand)
        arguments = ("firewall", self._bridge, *_subnets(found), *resolvers)
        try:
            await run_errand(client, errand.on_host(*arguments))
        except ErrandError as error:
            raise IsolationUnavailableError(
                f"the firewall that keeps workspaces from metadata addresses and from the engine's host cannot be put "
                f"up ({error}); the engine must run containers with the host's network and CAP_NET_ADMIN, and its "
                "kernel needs nf_tables and br_netfilter; or make the workspace without a network",
                field=_FIELD,
            ) from error
        return WorkspaceNetwork(str(found["Id"]), resolvers)

    async def _ensure_network(self, client: aiodocker.Docker) -> Mapping[str, Any]:
        """Returns the engine's record of the network, made if need be, and checked."""
        wanted = {
            "Driver": "bridge",
            "Internal": False,
            "EnableIPv6": False,
            "Labels": {LABEL: _NETWORK_LABEL},
            "Options": {
                # Two services that make it at the same time: the engine refuses a second one with this interface.
                f"{_OPTION}name": self._bridge,
                f"{_OPTION}enable_icc": "false",
                f"{_OPTION}enable_ip_masquerade": "false",
            },
        }
        refusal: aiodocker.DockerError | None = None
        for _ in range(_RACE_ATTEMPTS):
            try:
                found: Mapping[str, Any] = await (await client.networks.get(self._name)).show()
            except aiodocker.DockerError as error:
                if error.status != 404:
                    raise
            else:
                self._check(found, wanted)
                return found
            try:
                await client.networks.create({"Name": self._name, "CheckDuplicate": True, **wanted})
            except aiodocker.DockerError as error:
                # Perhaps somebody else has just made it; engines tell so in several ways.
                refusal = error
                await asyncio.sleep(_RACE_POLL)
        told = f": {refusal.message}" if refusal else ", again and again"
        raise IsolationUnavailableError(f"the engine refuses to make the workspaces' network{told}", field=_FIELD)

    def _check(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        """Refuses a network that would give workspaces more than they are to have."""
        wrong = [] if len(_subnets(found)) == 1 else [f"its IPv4 subnets are {_subnets(found)}"]
        for name, value in wanted.items():
            actual = found.get(name)
            if isinstance(value, dict):
                actual = {key: (actual or {}).get(key) for key in value}
            if actual != value:
                wrong.append(f"{name} is {actual}")
        if wrong:
            raise IsolationUnavailableError(
                f"the engine has a network {self._name!r} that is not the workspaces' ({'; '.join(wrong)}); "
                f"remove it (docker network rm {self._name})",
                field=_FIELD,
            )


async def _is_there(client: aiodocker.Docker, network: WorkspaceNetwork) -> bool:
    try:
        await client.networks.get(network.id)
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise
        return False
    return True


def _subnets(found: Mapping[str, Any]) -> list[str]:
    pools = (found.get("IPAM") or {}).get("Config") or []
    return [pool["Subnet"] for pool in pools if ":" not in pool["Subnet"]]


async def _resolvers_of(client: aiodocker.Docker, errand: ErrandPlan) -> tuple[str, ...]:
    try:
        printed = await run_errand(client, errand.on_bridge("resolvers"))
    except ErrandError as error:
        raise IsolationUnavailableError(
            f"the engine's name servers cannot be found out ({error}); name some in {DNS_VARIABLE}",
            field=_FIELD,
        ) from error
    if not (resolvers := tuple(printed.split())):
        raise IsolationUnavailableError(
            f"the engine has no IPv4 name server that workspaces could ask; name some in {DNS_VARIABLE}",
            field=_FIELD,
        )
    return resolvers
