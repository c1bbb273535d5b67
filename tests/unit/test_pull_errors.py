"""What a tenant is told of an image that the engine cannot pull."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiodocker
import pytest
from aiohttp import web

from agentic_isolation import ImageUnavailableError, ProviderUnavailableError
from agentic_isolation_service.providers.docker import images
from agentic_isolation_service.providers.docker.images import _explained
from agentic_isolation_service.providers.docker.provider import DockerProvider
from tests.unit.fake_engine import answering

PAGE = "error parsing HTTP 403 response body: invalid character '<' looking for beginning of value: 'password=hunter2'"


def test_pages_that_an_engine_quotes_are_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """An image's name leads the engine to any address: to pages that its caller could not read itself."""
    caplog.set_level(logging.INFO)
    with pytest.raises(ImageUnavailableError) as raised, _explained("10.0.0.1/a"):
        raise aiodocker.DockerError(500, PAGE)
    assert "error parsing HTTP 403" in raised.value.message
    assert "hunter2" not in raised.value.message
    assert "hunter2" in caplog.text


def test_answers_of_registries_are_passed_on() -> None:
    with pytest.raises(ImageUnavailableError, match="manifest unknown"), _explained("a"):
        raise aiodocker.DockerError(404, "manifest for a:latest not found: manifest unknown: manifest unknown")


class FakeEngine:
    """Pulls any image, and says then what it is told to."""

    def __init__(self) -> None:
        self.pulled, self.ended = False, asyncio.Event()
        self.status = 404
        """Of its answer, whether it has the image now; 0: there is none."""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        if request.path.endswith("/images/create"):
            self.pulled = True
        if not request.path.endswith("/images/image/json"):
            return web.json_response({"ApiVersion": "1.45"})
        if not self.pulled:
            return web.json_response({"message": "no such image"}, status=404)
        if not self.status:
            await self.ended.wait()
        return web.json_response({"message": "it burns"}, status=self.status or 500)


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def provider(fake: FakeEngine, directory: Path) -> AsyncIterator[DockerProvider]:
    async with answering(fake.answer, directory) as host:
        provider = DockerProvider(host, service_id="s", default_image="image")
        yield provider
        await provider.aclose()
        fake.ended.set()


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (404, ImageUnavailableError, "does not have it"),
        (500, ProviderUnavailableError, "failed with 500.*it burns"),
        (0, ProviderUnavailableError, "does not answer in time"),
    ],
)
async def test_engine_that_fails_when_the_pull_is_done(
    provider: DockerProvider,
    fake: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    kind: type[Exception],
    words: str,
) -> None:
    """That is no fault of the image, and may be tried again."""
    monkeypatch.setattr(images, "LOOK_TIMEOUT", 1)
    fake.status = status
    with pytest.raises(kind, match=words):
        async for _ in provider.pull("image"):
            pass
