"""A replica of the service: one of several behind a proxy, which is stopped and started again at one address."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import connected
from tests.support.service import ServedProcess

_PORTS = range(20_000, 32_000)
"""Below those that the kernel gives away: whoever tries to reach a replica that is away must not take its port."""


class Replica:
    """A replica with a state directory of its own.

    Args:
        name: Its name.
        directory: Where it keeps its state.
        address: Where it listens; None: at a port of its own.
        options: More options of `serve`.
    """

    def __init__(self, name: str, directory: Path, *options: str, address: str | None = None) -> None:
        self.name = name
        self.port = free_port() if address is None else 0
        self.address = f"127.0.0.1:{self.port}" if address is None else address
        self.complaints = ""
        """What the processes that have ended had logged."""
        self._options = ["--replica", name, "--address", self.address, "--state-dir", str(directory / name)]
        self._options += ["--log-level", "warning", *options]
        self.process: ServedProcess | None = None

    async def start(self) -> None:
        """Starts it."""
        self.process = await asyncio.to_thread(ServedProcess, *self._options)

    async def end(self, number: int = signal.SIGTERM) -> None:
        """Ends it by a signal; its workspaces go on."""
        assert self.process is not None
        process, self.process = self.process, None
        process.process.send_signal(number)
        await asyncio.to_thread(process.process.wait, 60)
        self.complaints += process.log
        process.kill()

    async def restart(self, number: int = signal.SIGTERM) -> None:
        """Ends it, and starts it again when it has ended."""
        await self.end(number)
        await self.start()

    async def workspaces(self, **labels: str) -> list[pb.Workspace]:
        """Returns those of its workspaces that have these labels."""
        async with connected(self.address) as stub:
            return list((await stub.ListWorkspaces(pb.ListWorkspacesRequest(labels=labels))).workspaces)

    async def aclose(self) -> None:
        """Destroys what it has, and ends it."""
        if self.process is None:
            await self.start()
        async with connected(self.address) as stub:
            for workspace in await self.workspaces():
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id))
        await self.end()


@contextlib.asynccontextmanager
async def replicas(directory: Path, *names: str, options: tuple[str, ...] = ()) -> AsyncIterator[list[Replica]]:
    """Runs replicas, and leaves nothing of them."""
    made = [Replica(name, directory, *options) for name in names]
    try:
        await asyncio.gather(*(replica.start() for replica in made))
        yield made
    finally:
        await asyncio.gather(*(replica.aclose() for replica in made))


def free_port() -> int:
    """Returns a port of this machine that nobody uses."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(("127.0.0.1", port))
            return port
