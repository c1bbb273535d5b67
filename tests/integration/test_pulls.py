"""Pulls of images with progress, from an engine whose download is in the test's hands."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from agentic_isolation import ImageLayer, ImageUnavailableError, InvalidArgumentError, PulledImage, ServiceClient
from tests.support.eventually import eventually
from tests.support.service import ServedProcess
from tests.support.terminal import Terminal

IMAGE = "registry.example.org/team/image:1"


class SlowEngine:
    """As much of a Docker Engine as a pull needs; what it downloads comes when the test says so."""

    def __init__(self, socket: Path) -> None:
        self.host = f"unix://{socket}"
        self.pulls = 0
        """Downloads that were asked for."""
        self.pulling = 0
        """Downloads under way."""
        self._has_image = False
        self._messages: asyncio.Queue[dict[str, object] | None] = asyncio.Queue()

    def progress(self, layer: str, done: int, total: int) -> None:
        detail = {"current": done, "total": total}
        self._messages.put_nowait({"id": layer, "status": "Downloading", "progressDetail": detail})

    def fail(self, error: str) -> None:
        self._messages.put_nowait({"error": error, "errorDetail": {"message": error}})
        self._messages.put_nowait(None)

    def finish(self) -> None:
        self._has_image = True
        self._messages.put_nowait(None)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/images/create"):
            return await self._pull(request)
        if "/images/" in request.path and self._has_image:
            return web.json_response({"Id": "sha256:0"})
        if request.path.endswith("/version"):
            return web.json_response({"ApiVersion": "1.41"})
        if request.path.endswith("/info"):
            return web.json_response({"ServerVersion": "1", "OSType": "linux", "Architecture": "x86_64", "NCPU": 1})
        return web.json_response({"message": "there is no such thing"}, status=404)

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        self.pulls += 1
        self.pulling += 1
        try:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            while (message := await self._messages.get()) is not None:
                await response.write(json.dumps(message).encode() + b"\r\n")
            return response
        finally:
            self.pulling -= 1


@pytest.fixture
async def engine(directory: Path) -> AsyncIterator[SlowEngine]:
    engine = SlowEngine(directory / "engine.sock")
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.UnixSite(runner, str(directory / "engine.sock")).start()
    yield engine
    await runner.cleanup()


@contextlib.asynccontextmanager
async def served(engine: SlowEngine) -> AsyncIterator[ServiceClient]:
    arguments = ("--address", "127.0.0.1:0", "--docker-host", engine.host)
    service = await asyncio.to_thread(ServedProcess, *arguments)
    try:
        async with ServiceClient(service.target, retry_timeout=0) as client:
            yield client
    finally:
        await asyncio.to_thread(service.stop)


async def collect(client: ServiceClient, seen: list[ImageLayer | PulledImage]) -> None:
    async with contextlib.aclosing(client.pull_image(image=IMAGE)) as events:
        async for event in events:
            seen += [event]


async def test_pull_that_several_wait_for(engine: SlowEngine) -> None:
    """There is one download; all see how it goes; one that leaves ends nothing, and the last one ends it."""
    async with served(engine) as client:
        seen: tuple[list[ImageLayer | PulledImage], ...] = ([], [])
        pullers = [asyncio.create_task(collect(client, events)) for events in seen]
        await eventually(lambda: engine.pulling == 1, "the download has begun")
        engine.progress("layer-1", 10, 100)
        await eventually(lambda: all(ImageLayer("layer-1", "Downloading", 10, 100) in it for it in seen), "both see it")
        assert engine.pulls == 1
        pullers[0].cancel()
        await asyncio.wait(pullers[:1])
        engine.progress("layer-1", 100, 100)
        await eventually(lambda: ImageLayer("layer-1", "Downloading", 100, 100) in seen[1], "it goes on")
        pullers[1].cancel()
        await asyncio.wait(pullers[1:])
        await eventually(lambda: engine.pulling == 0, "nobody wants it, and it has ended")

        again: list[ImageLayer | PulledImage] = []
        puller = asyncio.create_task(collect(client, again))
        await eventually(lambda: engine.pulling == 1, "it begins anew")
        engine.finish()
        await puller
        assert again == [PulledImage(IMAGE, was_present=False)]
        await collect(client, again)
        assert again[1:] == [PulledImage(IMAGE, was_present=True)]
        assert engine.pulls == 2


async def test_pulls_that_fail(engine: SlowEngine) -> None:
    async with served(engine) as client:
        puller = asyncio.create_task(collect(client, []))
        await eventually(lambda: engine.pulling == 1, "the download has begun")
        engine.fail("the registry wants a password")
        with pytest.raises(ImageUnavailableError, match="the registry wants a password"):
            await puller
        for provider, image, field in (("local", "", "provider"), ("none", "", "provider"), ("docker", "A b", "image")):
            with pytest.raises(InvalidArgumentError) as raised:
                await anext(client.pull_image(provider, image))
            assert raised.value.field == field


async def test_run_shows_a_download(engine: SlowEngine) -> None:
    """On a terminal; here the engine can do nothing beyond, and that is told after it."""
    arguments = ("run", "--provider", "docker", "--image", IMAGE, "--", "true")
    with Terminal(*arguments, environment={"DOCKER_HOST": engine.host}) as terminal:
        await eventually(lambda: engine.pulling == 1, "the download has begun")
        engine.progress("layer-1", 1 << 20, 4 << 20)
        await asyncio.to_thread(terminal.expect, "layer-1 Downloading")
        assert "1.0/4.2 MB" in terminal.text()
        engine.finish()
        assert await asyncio.to_thread(terminal.wait) == 125
        assert "agentic-isolation: " in terminal.text()
