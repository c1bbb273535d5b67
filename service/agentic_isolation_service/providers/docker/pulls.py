"""Pulls of images under way: one for each image, whoever waits for it or looks on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import aiodocker
import aiohttp
from aiodocker.jsonstream import json_stream_stream

from agentic_isolation._cleanup import finish
from agentic_isolation.images import ImageLayer
from agentic_isolation.runs import KeepAlive
from agentic_isolation_service.providers.docker.engine import CONNECT_TIMEOUT

PULL_TIMEOUT = 600.0
"""Seconds."""
KEEPALIVE = 30.0
"""Seconds without news after which a follower is given a sign of life."""
_MAX_LAYERS = 1000
"""Layers that are told of; images have at most 127."""
_MAX_TEXT = 200


class Pulls:
    """The pulls of one engine. One that nobody follows any more is cancelled."""

    def __init__(self) -> None:
        self._pulls: dict[str, Pull] = {}

    @contextlib.asynccontextmanager
    async def join(self, client: aiodocker.Docker, image: str) -> AsyncIterator[Pull]:
        """Yields the pull of an image that is under way, or a new one."""
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = Pull(client, image)
        pull.followers += 1
        try:
            yield pull
        finally:
            pull.followers -= 1
            if not pull.followers or pull.task.done():
                # Whoever comes from now on looks anew.
                if self._pulls.get(image) is pull:
                    del self._pulls[image]
                await finish(pull.aclose())


class Pull:
    """The download of one image. Followers are told the latest state of each layer, however slow they are."""

    def __init__(self, client: aiodocker.Docker, image: str) -> None:
        self.followers = 0
        self._layers: dict[str, tuple[int, ImageLayer]] = {}
        self._changes = 0
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._run(client, image), name=f"pull:{image}")
        self.task.add_done_callback(lambda _: self._wake())

    async def wait(self) -> None:
        """Returns when the image was pulled.

        Raises:
            DockerError: It could not be.
            TimeoutError: It took longer than PULL_TIMEOUT.
        """
        await asyncio.wait([self.task])
        self.task.result()

    async def follow(self) -> AsyncGenerator[ImageLayer | KeepAlive, None]:
        """Yields the layers as they get further, until the image was pulled.

        Raises:
            DockerError, TimeoutError: As `wait`.
        """
        seen = 0
        while True:
            changed, news = self._changed, [entry for entry in self._layers.values() if entry[0] > seen]
            seen = self._changes
            for _, layer in news:
                yield layer
            if self.task.done():
                self.task.result()
                return
            if self._changed is changed:
                try:
                    async with asyncio.timeout(KEEPALIVE):
                        await changed.wait()
                except TimeoutError:
                    yield KeepAlive()

    async def aclose(self) -> None:
        """Cancels what is under way."""
        self.task.cancel()
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.exception()  # its followers were told

    async def _run(self, client: aiodocker.Docker, image: str) -> None:
        wanted = {"fromImage": image}
        if not {":", "@"} & set(image.rpartition("/")[2]):
            wanted["tag"] = "latest"  # without a tag the engine would pull all that there are
        timeout = aiohttp.ClientTimeout(total=PULL_TIMEOUT, connect=CONNECT_TIMEOUT)
        # Not client.images.pull: cancelled, it leaves the connection to the garbage collector, and the engine pulls on.
        async with (
            asyncio.timeout(PULL_TIMEOUT),
            client._query("images/create", "POST", params=wanted, timeout=timeout) as response,
        ):
            try:
                async for message in json_stream_stream(response):
                    self._take(message)
            finally:
                response.close()

    def _take(self, message: dict[str, object]) -> None:
        layer_id, status, detail = message.get("id"), message.get("status"), message.get("progressDetail")
        if not isinstance(layer_id, str) or not isinstance(status, str) or not isinstance(detail, dict):
            return
        layer_id = layer_id[:_MAX_TEXT]
        if layer_id not in self._layers and len(self._layers) >= _MAX_LAYERS:
            return
        layer = ImageLayer(layer_id, status[:_MAX_TEXT], _count(detail.get("current")), _count(detail.get("total")))
        self._changes += 1
        self._layers[layer_id] = self._changes, layer
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 63 else 0
