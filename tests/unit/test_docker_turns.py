"""Containers that are made at a time: as many as the engine's CPUs are good for, from the first one on."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from agentic_isolation import WorkspaceConfig
from agentic_isolation_service.core.ports import PlaceSpec
from agentic_isolation_service.providers.docker import engine as docker_engine
from agentic_isolation_service.providers.docker import provider as docker_provider
from agentic_isolation_service.providers.docker.provider import DockerProvider
from tests.unit.fake_engine import answering
from tests.unit.fake_guest import PATIENCE

TIME = "2026-12-01T00:00:00Z"
INFO = {"ServerVersion": "1", "Architecture": platform.machine(), "NCPU": 1, "DefaultRuntime": "runc"}


class FakeEngine:
    """Has every image and volume, and takes its time for containers."""

    def __init__(self) -> None:
        self.making = self.most = 0

    async def answer(self, request: web.BaseRequest) -> web.Response:
        path = request.path
        if path.endswith("/containers/create"):
            self.making += 1
            self.most = max(self.making, self.most)
            await asyncio.sleep(0.1)
            self.making -= 1
            return web.json_response({"Id": "c", "Warnings": []}, status=201)
        if path.endswith("/start"):
            return web.Response(status=204)
        if path.endswith("/containers/json"):
            return web.json_response([])
        if path.endswith("/volumes"):
            return web.json_response({"Volumes": []})
        return web.json_response(INFO | {"ApiVersion": "1.45", "Id": "i", "CreatedAt": TIME})


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def provider(fake: FakeEngine, directory: Path) -> AsyncIterator[DockerProvider]:
    async with answering(fake.answer, directory) as host:
        provider = DockerProvider(host, service_id="s", default_image="image")
        yield provider
        await provider.aclose()


async def test_the_first_containers_wait_for_their_turn_too(
    provider: DockerProvider, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that have waited so long for their image that the engine has to be asked anew what it is."""
    monkeypatch.setattr(docker_engine, "FACTS_AGE", 0)
    turns = docker_provider._FEWEST_TURNS
    specs = [PlaceSpec(f"ws-{number}", WorkspaceConfig(provider="docker"), bytes(32)) for number in range(3 * turns)]
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for spec in specs:
            group.create_task(provider.create(spec))
    assert fake.most == turns
