"""Clients that make workspaces, run commands, read streams and destroy, and account for every call."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from agentic_isolation import AgenticWorkspace
from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import Stub, connected, host_file, seconds, shell

_T = TypeVar("_T")
_LINES = 25
_STREAM = f"echo ID >> log; for i in $(seq {_LINES}); do echo $i; sleep 0.02; done"
_ENDLESS = "i=0; until [ -e stop ]; do i=$((i+1)); echo $i; sleep 0.02; done; echo end"
_EXPECTED = [str(number + 1) for number in range(_LINES)]
LINGER = seconds(60)


class Load:
    """What clients do, until they are told to end, and what they were told.

    Args:
        target: Envoy.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._ending = asyncio.Event()
        self.call_count = 0
        self.command_count = 0
        self.stream_count = 0
        self.workspace_count = 0
        self.resumed_count = 0
        """Streams of clients without our Python client's own patience that they had to resume."""
        self.longest = 0.0
        """Seconds of the longest unary call."""
        self.endless_lines = 0

    def end(self) -> None:
        """Has every client end when it has come round."""
        self._ending.set()

    async def our_client(self) -> None:
        """The Python client."""
        while not self._ending.is_set():
            ws = await self._timed(AgenticWorkspace.create(provider="local", target=self._target).__aenter__())
            ids = []
            for _ in range(2):
                ids += [self._new_id(), self._new_id()]
                result = await self._timed(ws.execute(f"echo {ids[-2]} >> log; echo {ids[-2]}"))
                assert (result.exit_code, result.stdout) == (0, f"{ids[-2]}\n")
                lines = [line async for line in ws.stream(_STREAM.replace("ID", ids[-1]))]
                assert lines == _EXPECTED
                self.stream_count += 1
            _check_log(Path(ws.info.host_path) / "log", ids)
            await self._timed(ws.close())
            self.workspace_count += 1

    async def any_client(self) -> None:
        """A client that repeats nothing by itself, and resumes streams as the contract says."""
        async with connected(self._target) as stub:
            while not self._ending.is_set():
                creation = pb.CreateWorkspaceRequest(provider="local", lease_duration=LINGER, request_id=self._new_id())
                workspace = (await self._timed(stub.CreateWorkspace(creation))).workspace
                ids = []
                for _ in range(2):
                    ids += [self._new_id(), self._new_id()]
                    result = await self._timed(stub.Execute(self._execute(workspace, ids[-2])))
                    assert (result.termination.exit_code, result.stdout.head) == (0, f"{ids[-2]}\n".encode())
                    assert (await self._stream(stub, workspace, ids[-1])).decode().split() == _EXPECTED
                    self.stream_count += 1
                _check_log(host_file(workspace, "log"), ids)
                destruction = pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id)
                await self._timed(stub.DestroyWorkspace(destruction))
                self.workspace_count += 1

    async def reader(self) -> None:
        """One stream from the beginning to the end, through all that happens meanwhile."""
        async with AgenticWorkspace.create(provider="local", target=self._target) as ws:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._stop(Path(ws.info.host_path)))
                lines = [line async for line in ws.stream(_ENDLESS)]
            assert lines == [*(str(number + 1) for number in range(len(lines) - 1)), "end"]
            self.endless_lines += len(lines) - 1

    async def _stop(self, root: Path) -> None:
        await self._ending.wait()
        (root / "stop").touch()

    async def _stream(self, stub: Stub, workspace: pb.Workspace, command_id: str) -> bytes:
        start = pb.ProcessStart(command=shell(_STREAM.replace("ID", command_id)), line_mode=True)
        request = pb.StreamRequest(
            workspace_id=workspace.workspace_id, start=start, linger=LINGER, request_id=command_id
        )
        content, process_id = b"", ""
        while True:
            try:
                self.call_count += 1
                call: Any = stub.Stream(request)
                async for event in call:
                    match event.WhichOneof("event"):
                        case "started":
                            process_id = event.started.process_id
                        case "output":
                            assert event.output.offset == len(content)
                            content += event.output.data
                        case "exited":
                            return content
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or not process_id:
                    raise
                self.resumed_count += 1
                resume = pb.ProcessResume(process_id=process_id, offset=len(content))
                request = pb.StreamRequest(workspace_id=workspace.workspace_id, resume=resume)

    def _execute(self, workspace: pb.Workspace, command_id: str) -> pb.ExecuteRequest:
        return pb.ExecuteRequest(
            workspace_id=workspace.workspace_id,
            command=shell(f"echo {command_id} >> log; sleep 0.02; echo {command_id}"),
            linger=LINGER,
            request_id=command_id,
        )

    def _new_id(self) -> str:
        self.command_count += 1
        return uuid.uuid4().hex

    async def _timed(self, call: Awaitable[_T]) -> _T:
        self.call_count += 1
        began = time.monotonic()
        try:
            return await call
        finally:
            self.longest = max(self.longest, time.monotonic() - began)


def _check_log(log: Path, ids: list[str]) -> None:
    """Fails where a command of a workspace ran more or less than once."""
    assert log.read_text().split() == ids
