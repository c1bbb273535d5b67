"""A program that asks for the output of many commands, to be stopped before any of it comes.

`python -m tests.support.unreading_client TARGET TOKEN WORKSPACE COUNT`; it prints a line when all have been asked for,
and another one with how many it was given in full.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc.aio

from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc

OUTPUT = 1_000_000
"""Bytes that each command prints."""
COMMAND = pb.Command(shell=f"sleep 2; head -c {OUTPUT} /dev/zero")


async def main(target: str, token: str, workspace_id: str, count: int) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = pb_grpc.WorkspaceServiceStub(channel)
        request = pb.ExecuteRequest(workspace_id=workspace_id, command=COMMAND)
        metadata = (("authorization", f"Bearer {token}"),)
        calls = [stub.Execute(request, metadata=metadata) for _ in range(count)]
        await asyncio.sleep(1)
        print("asked", flush=True)
        answers = await asyncio.gather(*calls)
    print(sum(len(answer.stdout.head) == OUTPUT for answer in answers), flush=True)


if __name__ == "__main__":
    _, target, token, workspace_id, count = sys.argv
    asyncio.run(main(target, token, workspace_id, int(count)))
