"""Watches an agent work in a workspace: a hardened container where there is a Docker Engine, else a plain directory.

`python examples/demo.py`. It says on standard error which isolation is in force; the agent's events, one JSON object a
line, go to standard output as they happen.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agentic_isolation import AgenticWorkspace, Isolation, ProviderUnavailableError
from agentic_isolation.errors import ImageUnavailableError

AGENT = Path(__file__).with_name("agent.py")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def in_words(isolation: Isolation) -> str:
    """What a workspace has been given, measured from inside of it."""
    if isolation.runtime == "local":
        return "a plain directory and plain processes of this machine: NOT ISOLATED, for code that you trust"
    capabilities = " ".join(isolation.capabilities) or "no capabilities"
    root = "read-only root" if isolation.read_only_root else "writable root"
    network = isolation.network.value if isolation.network else "unknown"
    return (
        f"a container under {isolation.runtime}: user {isolation.user}, {capabilities}, {root}, network {network}, "
        f"{(isolation.memory_bytes or 0) >> 20} MiB of memory, {isolation.pids_limit} processes"
    )


async def watch(provider: str) -> int:
    """Runs the agent in a new workspace and returns its exit code."""
    async with AgenticWorkspace.create(provider=provider) as workspace:
        say(f"Workspace {workspace.id} is {in_words(workspace.info.isolation)}.")
        await workspace.write_file(AGENT.name, AGENT.read_bytes())
        async with workspace.stream(["python3", "-u", AGENT.name]) as agent:
            async for line in agent:
                print(line, flush=True)
        return 1 if agent.exit_code is None else agent.exit_code


async def main() -> int:
    try:
        return await watch("docker")
    except (ProviderUnavailableError, ImageUnavailableError) as reason:
        say(f"No container: {reason}.")
    return await watch("local")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
