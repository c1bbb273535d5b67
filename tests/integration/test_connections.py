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
from tests.support import h2
from tests.support.service import ServedProcess
from tests.turns import WAITS

INTERVAL = 5.2
"""Seconds: a little more than the least that is allowed."""


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
            writer.write(h2.PREFACE + h2.frame(h2.SETTINGS))
            for number in range(5):
                writer.write(h2.frame(h2.PING, number.to_bytes(8)))
                async with asyncio.timeout(10):
                    while (kind := await h2.kind_of_next(reader)) != (h2.PING, h2.ACKNOWLEDGED):
                        assert kind[0] != h2.GOAWAY, f"ping {number} was one too many"
                await asyncio.sleep(INTERVAL)
