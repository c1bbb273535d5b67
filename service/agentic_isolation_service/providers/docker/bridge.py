"""The byte stream to a guest in a container: one long-lived exec of the guest's bridge, its stdio as the stream."""

from __future__ import annotations

import asyncio
import contextlib

import aiodocker
import aiohttp
from aiodocker.containers import DockerContainer
from aiodocker.stream import Stream

from agentic_isolation_service.providers.docker.container import GUEST_PATH, GUEST_SOCKET

_STDOUT = 1
_BRIDGE_USER = "65532:65532"
"""Not the workload's: under gVisor that could open a bridge's descriptors and write into the link."""
_OPEN_TIMEOUT = 15.0
"""Seconds that the engine may take to start a bridge."""


class BridgeStream:
    """A bridge's standard input and output. Drained promptly by the link, whatever its channels' readers do.

    It ends with its container: under gVisor the engine may keep the stream of an exec open that nothing runs any more.
    """

    def __init__(self, container: DockerContainer, stream: Stream) -> None:
        self._container = container
        self._stream = stream
        self._words = b""
        self._watch = asyncio.create_task(self._end_with_container())

    @classmethod
    async def open(cls, container: DockerContainer) -> BridgeStream:
        """Starts a bridge. Raises DockerError where the container is gone or not running."""
        async with asyncio.timeout(_OPEN_TIMEOUT):
            # The container's own environment holds the guest's settings, which are none of the bridge's business.
            execution = await container.exec(
                [GUEST_PATH, "bridge", GUEST_SOCKET],
                stdin=True,
                stdout=True,
                stderr=True,
                tty=False,
                environment={"AGENTIC_GUEST_CONFIG": ""},
                user=_BRIDGE_USER,
                workdir="/",
            )
            bridge = cls(container, execution.start(detach=False))
            try:
                await bridge._stream.__aenter__()  # starts it; else the first read would, outside of this timeout
            except BaseException:
                await bridge.aclose()
                raise
        return bridge

    async def receive(self, size: int) -> bytes:
        """Returns the next bytes, or none at the end."""
        try:
            while (message := await self._stream.read_out()) is not None:
                if message.stream == _STDOUT:
                    return message.data
                self._words = (self._words + message.data)[-500:]
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error
        if self._words:
            raise ConnectionError(self._words.decode("utf-8", "replace").strip())
        return b""

    async def send(self, data: bytes) -> None:
        """Sends all of `data`."""
        try:
            await self._stream.write_in(data)
        except (aiohttp.ClientError, RuntimeError, AssertionError) as error:
            raise ConnectionError(f"the bridge has ended: {error}") from error

    async def aclose(self) -> None:
        """Ends the bridge."""
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await self._hang_up()

    async def _end_with_container(self) -> None:
        # Where the engine does not tell, the link's own watch for silence is left.
        with contextlib.suppress(aiodocker.DockerError, aiohttp.ClientError, TimeoutError):
            await self._container.wait()
            await self._hang_up()

    async def _hang_up(self) -> None:
        response = self._stream._resp
        transport = response.connection.transport if response is not None and response.connection is not None else None
        if isinstance(transport, asyncio.WriteTransport) and transport.get_write_buffer_size():
            # What a stopped engine has not taken would keep the connection open until it goes on.
            transport.abort()
        with contextlib.suppress(aiohttp.ClientError, AssertionError, OSError):
            await self._stream.close()
