"""Connections that go through a test's hands: passed on as they are, and cut, held up, slowed or refused."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

_SIZE = 1 << 16
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 s: closing sends RST."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Relay:
    """Passes the bytes of every connection on, both ways, and so the end of each way.

    Args:
        listen: Begins to listen, and has each connection served by what it is given; called again after `refuse`.
        connect: Connects to what is behind.
    """

    def __init__(
        self, listen: Callable[[Serve], Awaitable[asyncio.Server]], connect: Callable[[], Awaitable[Streams]]
    ) -> None:
        self._listen = listen
        self._connect = connect
        self._server: asyncio.Server | None = None
        self._passable = asyncio.Event()
        self._passable.set()
        self._answerable = asyncio.Event()
        self._answerable.set()
        self._connections: set[asyncio.Task[None]] = set()
        self.delay = 0.0
        """Seconds for which each piece of data is held back at most, at random; order is kept."""
        self.rate = 0
        """Bytes that pass each way in a second at most; 0: as many as come."""
        self.connection_count = 0
        """Connections so far."""
        self.byte_count = 0
        """Bytes passed on so far, both ways."""

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.refuse()

    @property
    def port(self) -> int:
        """Where it listens, if that is a port."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def accept(self) -> None:
        """Takes connections; again, after `refuse`."""
        self._server = await self._listen(self._serve)

    async def refuse(self) -> None:
        """Resets what is open and refuses new connections, as what is behind does when it does not run."""
        assert self._server is not None
        self._server.close()
        await self.reset()
        await self._server.wait_closed()

    async def reset(self) -> None:
        """Breaks all connections that are open, to both sides; new ones are taken."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def hold(self) -> None:
        """Passes nothing on any more, in no direction; connections stay open, and new ones are taken."""
        self._passable.clear()

    def hold_answers(self) -> None:
        """Passes nothing on any more that comes from behind; what comes from the front goes on."""
        self._answerable.clear()

    def release(self) -> None:
        """Passes on again what comes, and what was held meanwhile."""
        self._passable.set()
        self._answerable.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._connections.add(me)
        self.connection_count += 1
        ends = [writer]
        try:
            await self._passable.wait()
            from_behind, to_behind = await self._connect()
            ends.append(to_behind)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pass_on(reader, to_behind, self._passable))
                ways.create_task(self._pass_on(from_behind, writer, self._passable, self._answerable))
            for end in ends:
                end.close()
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            for end in ends:
                _break(end)
        finally:
            self._connections.discard(me)

    @property
    def _most(self) -> int:
        """Bytes to take at a time: a tenth of a second's where they are slowed."""
        return max(1, self.rate // 10) if self.rate else _SIZE

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *allowed: asyncio.Event
    ) -> None:
        while data := await reader.read(self._most):
            for permission in allowed:
                await permission.wait()
            if self.delay:
                await asyncio.sleep(random.uniform(0, self.delay))
            if self.rate:
                await asyncio.sleep(len(data) / self.rate)
            writer.write(data)
            self.byte_count += len(data)
            await writer.drain()
        for permission in allowed:
            await permission.wait()
        if writer.can_write_eof():
            with contextlib.suppress(OSError):
                writer.write_eof()
        else:
            writer.close()


def _break(writer: asyncio.StreamWriter) -> None:
    peer: socket.socket | None = writer.get_extra_info("socket")  # none where TLS has ended already
    with contextlib.suppress(OSError):
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
