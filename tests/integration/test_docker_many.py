"""A hundred workspaces through one service, which is afterwards as it was."""

from __future__ import annotations

import asyncio

import pytest

from agentic_isolation import AgenticWorkspace, SecurityConfig
from tests.engine import Engine
from tests.support import proc
from tests.support.engine_leaks import emptied
from tests.support.eventually import eventually
from tests.support.service import ServedProcess

pytestmark = pytest.mark.docker
WORKSPACES = 100
AT_A_TIME = 10
GROWTH = 16 << 20
"""Bytes that a service's memory may differ by; a leak of a workspace's buffers, a hundred times, would be more."""


async def use(target: str, number: int) -> None:
    security = SecurityConfig(use_gvisor=False)
    async with AgenticWorkspace.create(security=security, lease=60, target=target) as ws:
        await ws.write_file("data", bytes(64 << 10))
        result = await ws.execute(f"cat data | wc -c; echo {number}")
        assert result.stdout == f"{64 << 10}\n{number}\n"


async def use_many(target: str, count: int) -> None:
    room = asyncio.Semaphore(AT_A_TIME)

    async def one(number: int) -> None:
        async with room:
            await use(target, number)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(number))


@pytest.mark.timeout(240)
async def test_many_workspaces(engine: Engine, directory: object) -> None:
    with ServedProcess("--address", f"unix:{directory}/grpc.sock", "--log-level", "warning") as service:
        await use_many(service.target, 2 * AT_A_TIME)  # warm
        before = proc.open_files(service.pid)
        memory = proc.resident_bytes(service.pid)
        await use_many(service.target, WORKSPACES)
        await emptied(engine)
        await eventually(lambda: not proc.open_files(service.pid) - before, "no file is left open")
        growth = proc.resident_bytes(service.pid) - memory
        print(f"grew by {growth >> 10} KiB from {memory >> 20} MiB")
        assert growth < GROWTH
        assert not service.log
