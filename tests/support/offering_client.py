"""A program that offers a service commands at a rate, whatever becomes of them, or as fast as they are done.

`python -m tests.support.offering_client TARGET TOKEN WORKSPACE RATE SECONDS`; a RATE of 0 is a loop of WIDTH calls at a
time. It prints a line when it begins, and at its end what has become of the calls, in JSON. It is as nice as can be:
what is left of a small machine is enough to ask, and the service is to have its share.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from typing import Any

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc

WIDTH = 16
OUTPUT = 256 << 10
"""Bytes that each command prints: far more work for the service than asking for it is for us."""
_MOST_OPEN = 4000
"""Calls that one such program has open at most."""
_PATIENCE = 60.0
COMMAND = pb.Command(shell=f"head -c {OUTPUT} /dev/zero")


class Offering:
    def __init__(self, stub: Any, token: str, workspace_id: str) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._request = pb.ExecuteRequest(workspace_id=workspace_id, command=COMMAND)
        self.told: Counter[str] = Counter()
        self.seconds: list[float] = []

    async def call(self) -> None:
        began = time.monotonic()
        try:
            answer = await self._stub.Execute(self._request, metadata=self._metadata, timeout=_PATIENCE)
        except grpc.aio.AioRpcError as error:
            self.told[_reason(error)] += 1
        else:
            self.told["done" if answer.stdout.total_bytes == OUTPUT else "wrong"] += 1
            self.seconds.append(time.monotonic() - began)

    async def at_rate(self, rate: float, seconds: float) -> None:
        began, offered = time.monotonic(), 0
        calls: set[asyncio.Task[None]] = set()
        while (passed := time.monotonic() - began) < seconds:
            for _ in range(int(passed * rate) - offered):
                offered += 1
                if len(calls) >= _MOST_OPEN:
                    self.told["not sent"] += 1
                    continue
                task = asyncio.create_task(self.call())
                calls.add(task)
                task.add_done_callback(calls.discard)
            await asyncio.sleep(0.005)
        if calls:
            await asyncio.wait(calls)

    async def in_a_loop(self, seconds: float) -> None:
        until = time.monotonic() + seconds

        async def run() -> None:
            while time.monotonic() < until:
                await self.call()

        await asyncio.gather(*(run() for _ in range(WIDTH)))


def _reason(error: grpc.aio.AioRpcError) -> str:
    metadata: Any = dict(error.trailing_metadata() or ())
    status = Status.FromString(metadata.get("grpc-status-details-bin", b""))
    for detail in status.details:
        info = ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return f"{error.code().name}: {error.details()}"


async def main(target: str, token: str, workspace_id: str, rate: float, seconds: float) -> None:
    os.nice(19)
    async with grpc.aio.insecure_channel(target) as channel:
        offering = Offering(pb_grpc.WorkspaceServiceStub(channel), token, workspace_id)
        await offering.call()
        print("begins", flush=True)
        began = time.monotonic()
        await (offering.at_rate(rate, seconds) if rate else offering.in_a_loop(seconds))
        took = time.monotonic() - began
    ordered = sorted(offering.seconds)
    print(json.dumps({"told": offering.told, "took": took, "median": ordered[len(ordered) // 2]}), flush=True)


if __name__ == "__main__":
    _, target, token, workspace_id, rate, seconds = sys.argv
    asyncio.run(main(target, token, workspace_id, float(rate), float(seconds)))
