"""Many at once: on one workspace, and many workspaces."""

from __future__ import annotations

import asyncio

from tests.support.jobs import python
from tests.support.ways import Way, Workspace

MANY = 64
WORKSPACES = {"local": 50, "docker": 16}
"""By provider: a machine of two cores makes about two containers a second."""

# Prints its number on both sources until all the others have begun, so that none can end before all run.
MEETING = """
import os, sys, time
number, all_of_them = int(sys.argv[1]), int(sys.argv[2])
open(f"here-{number}", "w").close()
while len([name for name in os.listdir() if name.startswith("here-")]) < all_of_them:
    time.sleep(0.05)
for line in range(20):
    print(number, line)
    print(-number, line, file=sys.stderr)
sys.exit(number)
"""


def expected(number: int) -> list[str]:
    return [f"{number} {line}" for line in range(20)]


async def test_many_executes_at_once(ws: Workspace) -> None:
    """They wait for each other, so they do run at the same time."""
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(ws.execute(python(MEETING, str(number), str(MANY)))) for number in range(MANY)]
    for number, run in enumerate(runs):
        result = run.result()
        assert result.exit_code == number
        assert result.stdout.splitlines() == expected(number)
        assert result.stderr.splitlines() == [line if number == 0 else f"-{line}" for line in expected(number)]


async def test_many_streams_at_once(ws: Workspace) -> None:
    async def read(number: int) -> tuple[list[str], int | None]:
        stream = ws.stream(python(MEETING, str(number), str(MANY)))
        return [line async for line in stream], stream.exit_code

    async with asyncio.TaskGroup() as group:
        reads = [group.create_task(read(number)) for number in range(MANY)]
    assert [reading.result() for reading in reads] == [(expected(number), number) for number in range(MANY)]


async def test_many_files_at_once(ws: Workspace) -> None:
    async def there_and_back(number: int) -> bytes:
        await ws.write_file(f"d{number % 8}/file-{number}", bytes([number]) * 300_000)
        return await ws.read_file(f"d{number % 8}/file-{number}")

    async with asyncio.TaskGroup() as group:
        copies = [group.create_task(there_and_back(number)) for number in range(MANY)]
    assert [copy.result() for copy in copies] == [bytes([number]) * 300_000 for number in range(MANY)]


async def test_many_workspaces_at_once(way: Way) -> None:
    """Each is made, used and removed while all the others are; then a last look while all are there."""
    workspaces = WORKSPACES[way.provider]
    all_are_there = asyncio.Barrier(workspaces)

    async def use(number: int) -> tuple[str, str, list[str]]:
        async with way.open() as ws:
            await ws.write_file("number", str(number))
            await all_are_there.wait()
            text = (await ws.execute("cat number; ls")).stdout
            lines = [line async for line in ws.stream("cat number")]
            return ws.id, text, lines

    async with asyncio.TaskGroup() as group:
        uses = [group.create_task(use(number)) for number in range(workspaces)]
    seen = [use.result() for use in uses]
    assert len({workspace_id for workspace_id, _, _ in seen}) == workspaces
    assert [text for _, text, _ in seen] == [f"{number}number\n" for number in range(workspaces)]
    assert [lines for _, _, lines in seen] == [[str(number)] for number in range(workspaces)]


async def test_hundreds_of_commands_one_after_the_other(ws: Workspace) -> None:
    for number in range(200):
        assert (await ws.execute(["echo", str(number)])).stdout == f"{number}\n"
