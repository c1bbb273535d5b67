"""The byte stream over a unix socket: nothing that comes is lost, whenever it comes."""

from __future__ import annotations

import asyncio
import socket

from agentic_isolation_service.guest.stream import SocketStream


class Taken:
    """Takes what comes over a stream."""

    def __init__(self) -> None:
        self.data = b""
        self.end = asyncio.Event()

    def received(self, data: bytes) -> None:
        self.data += data

    def ended(self, error: OSError | None) -> None:
        assert error is None
        self.end.set()


async def test_what_comes_before_there_is_somebody_to_take_it() -> None:
    """asyncio's event loops keep it back. uvloop's reads on where a connection is paused while it is made."""
    here, there = socket.socketpair()
    here.setblocking(False)
    with there:
        stream = await SocketStream.over(here)
        stream.data_received(b"what comes ")
        there.sendall(b"later")
        taken = Taken()
        stream.start(taken)
        there.shutdown(socket.SHUT_WR)
        await taken.end.wait()
        await stream.aclose()
    assert taken.data == b"what comes later"
