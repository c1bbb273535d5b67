"""The byte stream to a guest in a container: one long-lived exec of the guest's bridge, its stdio as the stream."""

from __future__ import annotations

import asyncio
import contextlib

import aiodocker
import aiohttp
from aiodocker.containers import DockerContainer
from aiodocker.stream import Stream

from agentic_isolation_service.guest.stream import Receiver
from agentic_isolation_service.providers.docker.container import GUEST_SOCKET

_STDOUT = 1
_BRIDGE_USERS = ("65532:65532", "65533:65533")
"""A bridge has the first that is not the workload's: under gVisor that could open a bridge's descriptors and write into
the link, and stop bridges, of each of which the engine's host would keep a process until the container ends."""
_OPEN_TIMEOUT = 15.0
"""Seconds that the engine may take to start a bridge."""


class BridgeStream:
    """A bridge's standard input and output, drained promptly, whatever the readers of the link's channels do.

    It ends with its container: under gVisor the engine may keep the stream of an exec open that nothing runs any more.
    """

    def __init__(self, container: DockerContainer, stream: Stream) -> None:
        self._container = container
        self._stream = stream
        self._transport: asyncio.Transport | None = None
        self._watch = asyncio.create_task(self._end_with_container())
        self._reading: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, container: DockerContainer) -> BridgeStream:
        """Starts a bridge. Raises DockerError where the container is gone or not running."""
        async with asyncio.timeout(_OPEN_TIMEOUT):
            config = (await container.show())["Config"]
            # The container's own environment holds the guest's settings, which are none of the bridge's business.
            execution = await container.exec(
                [config["Entrypoint"][0], "bridge", GUEST_SOCKET],
                stdin=True,
                stdout=True,
                stderr=True,
                tty=False,
                environment={"AGENTIC_GUEST_CONFIG": ""},
                user=_user_beside(config.get("User", "")),
                workdir="/",
            )
            bridge = cls(container, execution.start(detach=False))
            try:
                await bridge._stream.__aenter__()  # starts it; else the first read would, outside of this timeout
                bridge._transport = _transport_of(bridge._stream)
            except BaseException:
                await bridge.aclose()
                raise
        return bridge

    @property
    def backlog(self) -> int:
        """Bytes that were written and that the engine has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def start(self, receiver: Receiver) -> None:
        """Begins to pass on what comes."""
        self._reading = asyncio.create_task(self._read(receiver))

    def write(self, data: bytes) -> None:
        """Sends all of `data`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        """Ends the bridge."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())

    async def aclose(self) -> None:
        """Ends the bridge and waits until it has."""
        self.abort()
        if self._ending is not None:
            await asyncio.shield(self._ending)

    async def _read(self, receiver: Receiver) -> None:
        words = b""
        error: OSError | None = None
        try:
            while (message := await self._stream.read_out()) is not None:
                if message.stream == _STDOUT:
                    receiver.received(message.data)
                else:
                    words = (words + message.data)[-500:]
            if words:
                error = ConnectionError(words.decode("utf-8", "replace").strip())
        except aiohttp.ClientError as broken:
            error = ConnectionError(str(broken))
        finally:
            receiver.ended(error)

    async def _end_with_container(self) -> None:
        # Where the engine does not tell, the link's own watch for silence is left.
        with contextlib.suppress(aiodocker.DockerError, aiohttp.ClientError, TimeoutError):
            await self._container.wait()
            await self._hang_up()

    async def _end(self) -> None:
        tasks = [task for task in (self._watch, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._hang_up()

    async def _hang_up(self) -> None:
        if self._transport is not None and self._transport.get_write_buffer_size():
            # What a stopped engine has not taken would keep the connection open until it goes on.
            self._transport.abort()
        with contextlib.suppress(aiohttp.ClientError, AssertionError, OSError):
            await self._stream.close()


def _user_beside(workload: str) -> str:
    """Returns whom a bridge runs as beside a workload of UID:GID."""
    return next(user for user in _BRIDGE_USERS if user.partition(":")[0] != workload.partition(":")[0])


def _transport_of(stream: Stream) -> asyncio.Transport:
    response = stream._resp
    transport = None if response is None or response.connection is None else response.connection.transport
    if transport is None:  # and no question of its class: uvloop's are not asyncio's
        raise ConnectionError("the engine has closed the bridge's stream at once")
    return transport
