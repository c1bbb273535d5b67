"""What GetServerInfo says of the isolation that there is, beside what a workspace then has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agentic_isolation import AgenticWorkspace, SecurityConfig
from agentic_isolation_service.providers.docker import DockerProvider
from tests.engine import Engine
from tests.integration.test_docker_engine_failures import answering, http

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("runtime", ["runc", pytest.param("runsc", marks=pytest.mark.gvisor)])
async def test_isolation_is_described_as_it_is_read_back(engine: Engine, directory: Path, runtime: str) -> None:
    """But for the kernel: nobody knows which one it is before there is a workspace."""
    facts = engine.api.json("GET", "/version") | engine.api.json("GET", "/info")
    facts |= {"Runtimes": {runtime: {}}, "DefaultRuntime": runtime}
    async with answering(directory / "fake.sock", http("200 OK", facts)) as host:
        provider = DockerProvider(host, service_id="test", default_image=engine.images.python)
        described = await provider.describe()
        await provider.aclose()
    security = SecurityConfig(use_gvisor=runtime == "runsc")
    async with AgenticWorkspace.create(provider="docker", security=security) as ws:
        assert ws.info.isolation is not None
        assert described.isolation == replace(ws.info.isolation, kernel="")
