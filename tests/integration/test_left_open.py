"""Programs whose event loop ends while workspaces are open: those are removed, and nobody is told of anything."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from tests.support.eventually import eventually
from tests.support.jobs import new_mark
from tests.support.proc import mentioning
from tests.support.program import python_environment

EMBEDDED = """
    kept.append(await AgenticWorkspace.create(provider="local"))
    kept.append(await AgenticWorkspace.create(provider="local"))
    ws = kept[0]
"""
DIRECT = """
    kept.append(provider := WorkspaceLocalProvider())
    ws = provider.workspace(await provider.create(WorkspaceConfig(provider="local")))
    await provider.create(WorkspaceConfig(provider="local"))
"""
PROGRAM = """
import asyncio, sys
from agentic_isolation import AgenticWorkspace, WorkspaceConfig, WorkspaceLocalProvider
kept = []
async def main():
    {making}
    kept.append(stream := ws.stream("echo begun; exec sleep {mark}"))
    print(await anext(stream), ws.info.host_path)
asyncio.run(main())
"""


@pytest.mark.parametrize("making", [EMBEDDED, DIRECT], ids=["embedded", "direct"])
async def test_workspaces_that_are_open_when_the_event_loop_ends(making: str) -> None:
    mark = new_mark()
    program = PROGRAM.format(making=making.strip(), mark=mark)
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), env=python_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(30):
        printed, complaints = await running.communicate()
    assert (running.returncode, complaints.decode()) == (0, "")
    assert printed.startswith(b"begun /")
    await eventually(lambda: not mentioning(mark), "the command is gone")
