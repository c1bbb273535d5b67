"""What the kernel counts for a user, across all containers: one workspace takes all of it, and another goes on."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from agentic_isolation import AgenticWorkspace, SecurityConfig, TerminalSize

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

TAKE_DESCRIPTORS_UNDER_WAY = """
import os, socket, sys
one, other = socket.socketpair()
one.setblocking(False)
null = os.open(os.devnull, os.O_RDONLY)
try:
    while True:
        socket.send_fds(one, [b"x"], [null] * 250)
except OSError as error:
    print(error.errno, flush=True)
sys.stdin.read()
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def neighbours() -> AsyncIterator[tuple[AgenticWorkspace, AgenticWorkspace]]:
    """Two workspaces with a user of their own, whom nobody else's has."""
    user = str(random.randrange(100_000, 2**31))
    security = replace(SecurityConfig.production(), use_gvisor=False, user=user)
    async with contextlib.AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(AgenticWorkspace.create(provider="docker", security=security))
            for _ in range(2)
        ]
        yield one, other


async def test_descriptors_that_lie_in_sockets(neighbours: tuple[AgenticWorkspace, AgenticWorkspace]) -> None:
    greedy, other = neighbours
    async with await greedy.start(["python3", "-c", TAKE_DESCRIPTORS_UNDER_WAY]) as taking:
        assert await anext(taking.lines()) == "109", "the control: ETOOMANYREFS"
        for _ in range(2):
            result = await other.execute("cat && pwd && ls /proc/self/fd | wc -l", stdin="in\n", timeout=10)
            assert (result.stdout, result.stderr) == ("in\n/workspace\n4\n", "")
        terminal = await other.start("tty; exit 3", terminal=TerminalSize(columns=80, rows=24))
        assert [line async for line in terminal.lines()] == ["/dev/pts/0"]
        assert (await terminal.wait()).exit_code == 3
        await taking.send_eof()
        await taking.wait()
    assert (await other.execute("ls /proc/self/fd | wc -l")).stdout == "4\n"
