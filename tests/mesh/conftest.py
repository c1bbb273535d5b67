"""Tests of several replicas behind a real Envoy."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import Stub, connected
from tests.support.envoy import Envoy
from tests.support.replica import Replica, replicas


class Mesh:
    """Two replicas, and Envoy before them."""

    def __init__(self, envoy: Envoy, members: list[Replica]) -> None:
        self.envoy = envoy
        self.replicas = members

    @property
    def target(self) -> str:
        """Envoy's address."""
        return self.envoy.target

    @property
    def log(self) -> str:
        """What the replicas have complained about."""
        return "".join(replica.process.log for replica in self.replicas if replica.process is not None)


@pytest.fixture(scope="session")
def mesh(private_temporary_directory: Path, own_interpreter_first: None, forks: None) -> Iterator[Mesh]:
    """A mesh for all tests that break nothing of it."""
    directory = Path(tempfile.mkdtemp(prefix="m-", dir=private_temporary_directory))
    with asyncio.Runner() as runner:
        running: Any = replicas(directory, "one", "two")
        members = runner.run(running.__aenter__())
        try:
            with Envoy(directory / "envoy", {replica.name: replica.port for replica in members}) as envoy:
                runner.run(use(envoy, members))
                yield Mesh(envoy, members)
        finally:
            runner.run(running.__aexit__(None, None, None))


async def use(envoy: Envoy, members: list[Replica]) -> None:
    """Has Envoy connect to every replica: what it keeps open for good is no test's leak."""
    async with connected(envoy.target) as stub:
        for replica in members:
            metadata = (("agentic-isolation-replica", replica.name),)
            assert (await stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=metadata)).replica == replica.name


@pytest.fixture
def ground(mesh: Mesh) -> Iterator[None]:
    """The mesh is up before accounts are taken, and its replicas do not complain."""
    before = len(mesh.log)
    yield
    assert not mesh.log[before:], "a replica has complained"


@pytest.fixture
async def stub(mesh: Mesh) -> AsyncIterator[Stub]:
    """The service through Envoy, by a client that knows nothing of replicas."""
    async with connected(mesh.target) as stub:
        yield stub
