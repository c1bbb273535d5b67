"""Tests that run real workspaces."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentic_isolation import SecurityConfig
from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import Stub, a_workspace, connected
from tests.support.scripted_service import ScriptedService
from tests.support.service import ServedProcess


@pytest.fixture(autouse=True)
def nothing_in_the_engine(leaves_nothing_in_the_engine: None) -> None:
    """Every test here that makes containers is looked after."""


@pytest.fixture
def ground(warm: None, service: ServedProcess) -> Iterator[None]:
    """Services and every way in are up before accounts are taken, and nothing that a client does is worth a warning."""
    before = len(service.log)
    yield
    complaints = service.log[before:]
    assert not complaints, "the service has complained"


@pytest.fixture(params=["runc", pytest.param("runsc", marks=pytest.mark.gvisor)])
def security(request: pytest.FixtureRequest) -> SecurityConfig:
    """Production's, once without and once under gVisor."""
    return SecurityConfig(use_gvisor=request.param == "runsc")


@pytest.fixture
def common() -> Iterator[Path]:
    """A directory that every user may enter; the test run's own is not."""
    path = Path(tempfile.mkdtemp(prefix="common-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def stub(service: ServedProcess) -> AsyncIterator[Stub]:
    """The service over the wire, without our client."""
    async with connected(service.target) as stub:
        yield stub


@pytest.fixture
async def workspace(stub: Stub) -> AsyncIterator[pb.Workspace]:
    """A workspace that was made over the wire."""
    async with a_workspace(stub) as workspace:
        yield workspace


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedService]:
    """A service that answers as it is told to."""
    async with ScriptedService() as service:
        yield service
