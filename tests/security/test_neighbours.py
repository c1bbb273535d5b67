"""What the kernel counts for a user, across all containers: one workspace takes all of it, and another goes on."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from agentic_isolation import AgenticWorkspace, ExecuteResult, SecurityConfig, StartError, TerminalSize

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

# Each process has as many watches as its descriptors allow, which is some millions.
TAKE_WATCHES = """
import os, select, signal, sys
files = [os.eventfd(0) for _ in range(1900)]
while True:
    polls = []
    try:
        for _ in range(2000):
            polls.append(select.epoll())
            for file in files:
                polls[-1].register(file, select.EPOLLIN)
    except OSError as error:
        print(error.errno, flush=True)
        break
    if os.fork():
        break
sys.stdin.read()
os.killpg(0, signal.SIGKILL)
"""

MOST_WATCHES = 8_000_000
"""More than these take minutes and gigabytes."""


def watches_of_a_user() -> int:
    limit = Path("/proc/sys/fs/epoll/max_user_watches")
    return int(limit.read_text()) if limit.exists() else 0


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


@pytest.mark.skipif(watches_of_a_user() > MOST_WATCHES, reason="this machine has too many to take them all")
async def test_watches_of_epoll(neighbours: tuple[AgenticWorkspace, AgenticWorkspace]) -> None:
    """Nothing can be waited for without one: commands are refused then, and none loses its output."""
    greedy, other = neighbours
    async with await greedy.start(["python3", "-c", TAKE_WATCHES]) as taking:
        assert await anext(taking.lines()) == "28", "the control: ENOSPC"
        for _ in range(3):
            runs = (other.execute("cat; echo out", stdin="in\n", timeout=10) for _ in range(8))
            for end in await asyncio.gather(*runs, return_exceptions=True):
                if isinstance(end, ExecuteResult):
                    assert (end.exit_code, end.stdout) == (0, "in\nout\n")
                else:
                    assert isinstance(end, StartError)
        with pytest.raises(StartError, match="max_user_watches"):
            await other.start("tty", terminal=TerminalSize(columns=80, rows=24))
        await taking.send_eof()
        await taking.wait()
    assert (await other.execute("cat; echo out", stdin="in\n")).stdout == "in\nout\n"
