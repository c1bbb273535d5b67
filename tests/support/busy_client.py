"""A program that uses one Docker workspace after the other until it is killed.

`python -m tests.support.busy_client RUNTIME`, which is `gvisor` or anything else. It prints a line when it begins, and
one for each of the steps of using a workspace.
"""

from __future__ import annotations

import asyncio
import sys

from agentic_isolation import AgenticWorkspace, IsolationError, SecurityConfig
from tests.support.jobs import new_mark, tree

LEASE = 2.0
"""Seconds that a workspace of it outlives it."""


STEPS = ("begins", "made", "written", "executed", "streaming", "streamed", "removed")


def done(step: str) -> None:
    assert step in STEPS
    print(step, flush=True)


async def use_a_workspace(security: SecurityConfig) -> None:
    async with AgenticWorkspace.create(security=security, lease=LEASE, target="") as ws:
        done("made")
        await ws.write_file("data", bytes(1 << 20))
        done("written")
        assert (await ws.execute("wc -c < data")).stdout == f"{1 << 20}\n"
        done("executed")
        stream = ws.stream(tree(new_mark()))
        async for _ in stream:
            done("streaming")
            break
        await stream.aclose()
        done("streamed")
    done("removed")


async def main(runtime: str) -> None:
    from agentic_isolation_service import app  # noqa: F401  is loaded before the line is printed

    done("begins")
    while True:
        try:
            await use_a_workspace(SecurityConfig(use_gvisor=runtime == "gvisor"))
        except IsolationError as error:
            print(error, file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
