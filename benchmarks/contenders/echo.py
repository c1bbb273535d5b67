"""A reference: what a unary call of grpc.aio costs that does nothing, with its server in this process or another."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from benchmarks.contender import Contender, Place

_METHOD = "/benchmark.Echo/Echo"
_PAYLOAD = b"x" * 100


class UnaryEcho(Contender):
    """A server that sends back what it gets, on a unix socket.

    Args:
        own_process: Whether it is a process of its own.
    """

    def __init__(self, *, own_process: bool) -> None:
        self._own_process = own_process
        self._process: asyncio.subprocess.Process | None = None
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-echo-")
        self._address = f"unix:{Path(self._directory.name) / 'sock'}"
        if self._own_process:
            command = [sys.executable, "-m", __name__, self._address]
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
            assert self._process.stdout is not None
            await self._process.stdout.readline()
        else:
            self._server = await _serve(self._address)
        self._channel = grpc.aio.insecure_channel(self._address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._channel.close()
        if self._server is not None:
            await self._server.stop(None)
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()
        self._directory.cleanup()

    async def create(self) -> Place:
        """Returns a place whose commands are calls."""
        return _EchoPlace(self._channel)

    async def destroy(self, place: Place) -> None:
        """There is nothing to remove."""


class _EchoPlace(Place):
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)

    async def execute(self, command: Sequence[str]) -> None:
        assert await self._call(_PAYLOAD) == _PAYLOAD


async def _echo(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return request


async def _serve(address: str) -> grpc.aio.Server:
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmark.Echo", {"Echo": handler}),))
    server.add_insecure_port(address)
    await server.start()
    return server


async def _serve_until_stdin_ends(address: str) -> None:
    server = await _serve(address)
    print("listening", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve_until_stdin_ends(sys.argv[1]))
