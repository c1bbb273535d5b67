"""What the Envoy of the composition logs: a line for each call."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import a_workspace, connected, shell
from tests.support.envoy import DEPLOY, Envoy
from tests.support.eventually import eventually
from tests.support.replica import replicas

CALLS = ["GetServerInfo", "CreateWorkspace", "Execute", "DestroyWorkspace"]


@pytest.fixture
def ground(forks: None) -> None:
    """It has a mesh of its own."""


def options_of_the_composition(directory: Path) -> list[str]:
    """Returns what Envoy is started with in the composition, but for its configuration."""
    program = directory / "bin" / "envoy"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    for name in ("agentic_isolation.binpb", "edge.key", "envoy.key"):
        (directory / name).touch()
    (directory / "envoy.yaml").write_text((DEPLOY / "envoy.yaml").read_text())
    environment = {"PATH": f"{program.parent}:/usr/bin:/bin", "TMPDIR": str(program.parent)}
    environment |= dict.fromkeys(("ENVOY_DIRECTORY", "ENVOY_TLS"), str(directory))
    script = DEPLOY.parent / "envoy-for-compose.sh"
    done = subprocess.run([str(script)], env=environment, capture_output=True, text=True, check=True)
    options = done.stdout.splitlines()
    assert options[:2] == ["-c", f"{program.parent}/envoy.yaml"]
    return options[2:]


async def test_a_call_is_a_line(directory: Path) -> None:
    composed = directory / "composed"
    composed.mkdir()
    options = await asyncio.to_thread(options_of_the_composition, composed)
    async with replicas(directory, "one") as (replica,):
        envoy = await asyncio.to_thread(
            lambda: Envoy(directory / "envoy", {"one": replica.port}, logs=options, more=["--log-level", "info"])
        )
        try:
            async with connected(envoy.target) as stub:
                await stub.GetServerInfo(pb.GetServerInfoRequest())
                before = envoy.log
                assert before, "it tells how it starts"
                async with a_workspace(stub) as workspace:
                    await stub.Execute(pb.ExecuteRequest(workspace_id=workspace.workspace_id, command=shell("true")))
            await eventually(lambda: len(envoy.access_log) >= len(CALLS), "the calls are logged")
            assert [call["method"].rpartition("/")[2] for call in envoy.access_log] == CALLS
            assert envoy.log == before
        finally:
            envoy.kill()
