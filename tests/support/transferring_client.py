"""A program that moves a large file until it is killed.

`python -m tests.support.transferring_client WAY TARGET WORKSPACE_ID LOCAL REMOTE`, where WAY is `up` or `down`. It
prints a line when a part of the file has been moved.
"""

from __future__ import annotations

import asyncio
import sys

from agentic_isolation import AgenticWorkspace, TransferProgress


def tell(progress: TransferProgress) -> None:
    if progress.done_bytes > 1 << 20:
        print("moving", flush=True)


async def main(way: str, target: str, workspace_id: str, local: str, remote: str) -> None:
    async with AgenticWorkspace.connect(workspace_id, target=target) as ws:
        if way == "up":
            await ws.upload(local, remote, progress=tell)
        else:
            await ws.download(remote, local, progress=tell)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
