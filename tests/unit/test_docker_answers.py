"""What answers in the Docker Engine's place, in JSON that is none of its API's: the provider is unavailable for it."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agentic_isolation import IsolationError, IsolationUnavailableError, ProviderUnavailableError, WorkspaceConfig
from agentic_isolation.models import Isolation
from agentic_isolation_service.core.ports import Place, PlaceSpec
from agentic_isolation_service.providers.docker import DockerProvider
from tests.unit.fake_engine import answering

INFO = {"ServerVersion": "1", "Architecture": platform.machine(), "NCPU": 1, "DefaultRuntime": "runc"}
SHAPES: list[Any] = [None, 5, "words", [], {}, [5], ["words"], [{}], {"Id": 5, "State": "words"}]
CONFIG = WorkspaceConfig(provider="docker")
PLACE = Place("ws-1", runtime="runc")
Ask = Callable[[DockerProvider], Awaitable[object]]


async def pull(provider: DockerProvider) -> None:
    async for _ in provider.pull("image:1"):
        pass


ASKED: dict[str, Ask] = {
    "list": lambda provider: provider.list(),
    "create": lambda provider: provider.create(PlaceSpec("ws-1", CONFIG, bytes(32))),
    "connect": lambda provider: provider.connect(PLACE),
    "destroy": lambda provider: provider.destroy(PLACE),
    "image_id": lambda provider: provider.image_id(CONFIG),
    "pull": pull,
    "isolation": lambda provider: provider.isolation(PLACE, CONFIG, Isolation(runtime="runc"), in_gvisor=False),
}


async def answers_of(shape: Any, info: Any, directory: Path, *asked: Ask) -> list[IsolationError]:
    """Returns what the provider makes of an engine whose every answer has a shape, but for what it says that it is."""

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path.endswith("/version"):
            return web.json_response({"ApiVersion": "1.45"})
        return web.json_response(info if request.path.endswith("/info") else shape)

    async with asyncio.timeout(20), answering(answer, directory) as host:
        provider = DockerProvider(host, service_id="service", default_image="image:1")
        told = []
        try:
            for ask in asked:
                try:
                    await ask(provider)
                except IsolationError as error:
                    told.append(error)
        finally:
            await provider.aclose()
    return told


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("asked", ASKED)
async def test_answers_of_another_shape(asked: str, shape: Any, directory: Path) -> None:
    """It is no defect of the service, and not all that is asked needs more of an answer than that there is one."""
    for error in await answers_of(shape, INFO, directory, ASKED[asked]):
        # A container that says nothing of its limits has none.
        assert isinstance(error, ProviderUnavailableError | IsolationUnavailableError)
        assert f"{directory}/docker.sock" in error.message


@pytest.mark.parametrize(
    "info",
    [
        *SHAPES,
        INFO | {"NCPU": "many"},
        INFO | {"Architecture": 64},
        INFO | {"DefaultRuntime": []},
        INFO | {"Runtimes": 5},
    ],
    ids=str,
)
async def test_what_is_no_engine(info: Any, directory: Path) -> None:
    [told] = await answers_of([], info, directory, lambda provider: provider.list())
    assert isinstance(told, ProviderUnavailableError)
    assert "what answers there is no Docker Engine" in told.message
