"""Replicas that get other addresses when they are started anew, each other's among them, as containers and pods do."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import Stub, connected
from tests.support.envoy import Envoy
from tests.support.eventually import eventually
from tests.support.name_server import NameServer
from tests.support.replica import Replica, free_port

ADDRESSES = ("127.0.0.2", "127.0.0.3")
REPLICAS = ("one", "two")
TIMES = 20
"""Of which half went wrong where Envoy held both addresses for one replica's."""


@pytest.fixture
def ground(forks: None) -> None:
    """It has a mesh of its own."""


def by_name(names: NameServer) -> Callable[[str], str]:
    """Returns what changes the configuration so that Envoy asks a name server for the replicas' addresses."""

    def change(text: str) -> str:
        for name in REPLICAS:
            old = "- endpoint: {address: {socket_address: {address: 127.0.0.1, "
            text = text.replace(old, old.replace("127.0.0.1", name), 1)
        asked = f"{{socket_address: {{address: 127.0.0.1, port_value: {names.port}}}}}"
        resolver = (
            "    dns_refresh_rate: 0.2s\n    dns_lookup_family: V4_ONLY\n    typed_dns_resolver_config:\n"
            "      name: envoy.network.dns_resolver.cares\n      typed_config:\n"
            '        "@type": type.googleapis.com/'
            "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig\n"
            f"        resolvers: [{asked}]\n        dns_resolver_options: {{no_default_search_domain: true}}\n"
        )
        assert text.count("    type: STRICT_DNS") == 1
        return text.replace("    type: STRICT_DNS", f"{resolver}    type: STRICT_DNS")

    return change


async def answers(stub: Stub, name: str) -> str:
    """Returns which replica answers when one is asked for by its name."""
    metadata = (("agentic-isolation-replica", name),)
    try:
        return (await stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=metadata)).replica
    except grpc.aio.AioRpcError as error:
        return str(error.details())


async def test_replicas_that_swap_addresses(directory: Path) -> None:
    port = free_port()

    def replicas(*addresses: str) -> list[Replica]:
        return [
            Replica(name, directory, address=f"{address}:{port}")
            for name, address in zip(REPLICAS, addresses, strict=True)
        ]

    async with NameServer.running() as names:
        members = replicas(*ADDRESSES)
        names.addresses = dict(zip(REPLICAS, ADDRESSES, strict=True))
        await asyncio.gather(*(replica.start() for replica in members))
        try:
            ports = dict.fromkeys(REPLICAS, port)
            envoy = await asyncio.to_thread(Envoy, directory / "envoy", ports, by_name(names))
            try:
                async with connected(envoy.target) as stub:
                    assert [await answers(stub, name) for name in REPLICAS] == list(REPLICAS)
                    await asyncio.gather(*(replica.end(signal.SIGKILL) for replica in members))
                    members = replicas(*reversed(ADDRESSES))
                    names.addresses = dict(zip(REPLICAS, reversed(ADDRESSES), strict=True))
                    await asyncio.gather(*(replica.start() for replica in members))

                    async def each_is_found() -> bool:
                        found = [[await answers(stub, name) for name in REPLICAS] for _ in range(TIMES)]
                        return found == [list(REPLICAS)] * TIMES

                    await eventually(each_is_found, "each is found at its new address, and nowhere else")
            finally:
                envoy.kill()
        finally:
            await asyncio.gather(*(replica.aclose() for replica in members))
