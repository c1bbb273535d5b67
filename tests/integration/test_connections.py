"""What goes over a connection beside messages: metadata and pings."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import grpc
import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import connected
from tests.support.service import ServedProcess
from tests.turns import WAITS

INTERVAL = 5.2
"""Seconds: a little more than the least that is allowed."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ACKNOWLEDGED = 1


def frame(kind: int, content: bytes = b"", flags: int = 0) -> bytes:
    """Returns a frame of HTTP/2 that is about the whole connection."""
    return len(content).to_bytes(3) + bytes([kind, flags]) + bytes(4) + content


async def kind_of_next(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Reads a frame and returns its kind and flags."""
    head = await reader.readexactly(9)
    await reader.readexactly(int.from_bytes(head[:3]))
    return head[3], head[4]


@pytest.mark.parametrize("size", [8 << 10, 15 << 10, 31 << 10])
async def test_metadata_of_a_call(service: ServedProcess, size: int) -> None:
    """Tokens may be long. Beyond its bound gRPC refuses calls at random, so one that passes proves nothing."""
    async with connected(service.target) as stub:
        for _ in range(50):
            await stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=(("token", "x" * size),))


async def test_metadata_that_is_too_large(service: ServedProcess) -> None:
    async with connected(service.target) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=(("token", "x" * (64 << 10)),))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@WAITS
async def test_idle_connection_that_pings(directory: Path) -> None:
    with ServedProcess("--address", f"unix:{directory}/grpc.sock") as service:
        reader, writer = await asyncio.open_unix_connection(service.target.removeprefix("unix:"))
        with contextlib.closing(writer):
            writer.write(PREFACE + frame(SETTINGS))
            for number in range(5):
                writer.write(frame(PING, number.to_bytes(8)))
                async with asyncio.timeout(10):
                    while (kind := await kind_of_next(reader)) != (PING, ACKNOWLEDGED):
                        assert kind[0] != GOAWAY, f"ping {number} was one too many"
                await asyncio.sleep(INTERVAL)
