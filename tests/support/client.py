"""A program that uses a workspace until it is killed.

`python -m tests.support.client WAY TARGET PID LEASE MODE MARK RETRY_TIMEOUT`

It prints the workspace's id as soon as commands with the mark run in it. MODE is `execute`, `stream` or `idle`.
"""

from __future__ import annotations

import asyncio
import sys

from agentic_isolation import OutputStream
from tests.support.jobs import TREE_SIZE, running, tree
from tests.support.ways import Way


async def read(stream: OutputStream) -> None:
    async for _ in stream:
        pass


async def main(name: str, target: str, pid: str, lease: str, mode: str, mark: str, retry: str) -> None:
    way = Way.of(name, target=target, service_pid=int(pid), retry_timeout=float(retry))
    async with way.open(way.config(lease=float(lease))) as ws, asyncio.TaskGroup() as group:
        if mode == "execute":
            group.create_task(ws.execute(tree(mark)))
        elif mode == "stream":
            group.create_task(read(ws.stream(tree(mark))))
        else:
            await ws.execute(f"sleep {mark} & echo left in the background")
        await running(ws, mark, 1 if mode == "idle" else TREE_SIZE)
        print(ws.id, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
