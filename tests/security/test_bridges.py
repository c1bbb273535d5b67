"""What a workload can do to the bridge that its guest is reached by, whichever user it runs as."""

from __future__ import annotations

import json

import pytest

from agentic_isolation import AgenticWorkspace, SecurityConfig
from tests.support.service import ServedProcess

pytestmark = [pytest.mark.docker, pytest.mark.gvisor]
ATTEMPT = """
import contextlib, json, os
done = {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    with contextlib.suppress(OSError):
        words = open(f"/proc/{pid}/cmdline").read().split(chr(0))
        if words[1:2] != ["bridge"]:
            continue
        attempts = {
            "signal": lambda: os.kill(int(pid), 0),
            "descriptors": lambda: os.open(f"/proc/{pid}/fd/1", os.O_WRONLY),
        }
        for name, attempt in attempts.items():
            try:
                attempt()
                done[name] = "done"
            except PermissionError:
                done[name] = "refused"
print(json.dumps(done))
"""


@pytest.mark.parametrize("user", ["1000:1000", "65532", "65532:65533", "65533:65533"])
async def test_no_workload_has_its_bridge_s_user(service: ServedProcess, user: str) -> None:
    """One that has can stop it, and the next: of each the engine's host keeps a process, outside of all limits."""
    security = SecurityConfig(use_gvisor=True, user=user)
    async with AgenticWorkspace.create(security=security, lease=60, target=service.target) as ws:
        tried = await ws.execute(["python3", "-c", ATTEMPT])
        assert json.loads(tried.stdout) == {"signal": "refused", "descriptors": "refused"}, tried.stderr
