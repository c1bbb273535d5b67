"""A name server of a test's own, whose answers change while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import struct
from collections.abc import AsyncIterator
from typing import Any, cast

_ADDRESS = b"\0\1\0\1"
"""An IPv4 address of the internet, as questions and answers spell it."""


class NameServer(asyncio.DatagramProtocol):
    """Answers over UDP (RFC 1035). Where it listens, `port`, is set when it does."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        """The IPv4 addresses of names. Other names are there as well, and have none."""
        self.port = 0
        self._closed = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator[NameServer]:
        """Yields one at a port of 127.0.0.1; nothing of it is left behind."""
        loop = asyncio.get_running_loop()
        transport, server = await loop.create_datagram_endpoint(cls, ("127.0.0.1", 0))
        server.port = transport.get_extra_info("sockname")[1]
        try:
            yield server
        finally:
            transport.close()
            await server._closed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._closed.set()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._transport.sendto(self._answer(data), addr)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", 12) + 1
        name, kind = query[12:end], query[end : end + 4]
        address = self.addresses.get(_spelt(name)) if kind == _ADDRESS else None
        header = query[:2] + struct.pack("!HHHHH", 0x8580, 1, int(address is not None), 0, 0)
        if address is None:
            return header + name + kind
        record = b"\xc0\x0c" + _ADDRESS + struct.pack("!IH", 0, 4) + ipaddress.IPv4Address(address).packed
        return header + name + kind + record


def _spelt(name: bytes) -> str:
    """Returns a name as people write it."""
    labels = []
    while name[0]:
        size = name[0]
        labels.append(name[1 : size + 1].decode("ascii").lower())
        name = name[size + 1 :]
    return ".".join(labels)
