"""Other users of this machine before a service's unix socket."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agentic_isolation import Credentials
from agentic_isolation.service import ServiceClient

NOBODY = 65534
_CONNECT = f"""
import os, socket, sys
os.setgroups([int(group) for group in sys.argv[2:]])
os.setgid({NOBODY})
os.setuid({NOBODY})
socket.socket(socket.AF_UNIX).connect(sys.argv[1])
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def connects(path: Path, *groups: int) -> bool:
    """Returns whether a process of NOBODY, with these groups, can connect."""

    def run() -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-I", "-S", "-c", _CONNECT, str(path), *map(str, groups)]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)

    ended = await asyncio.to_thread(run)
    assert ended.returncode == 0 or "PermissionError" in ended.stderr, ended.stderr
    return ended.returncode == 0


async def asked(target: str) -> None:
    """Asks a service, as ourselves, and is answered."""
    async with ServiceClient(target, credentials=Credentials(), retry_timeout=0) as client:
        assert (await client.info()).version
