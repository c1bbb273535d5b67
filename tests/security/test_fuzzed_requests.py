"""Requests that nobody would send who means well: a service answers each of them, by a refusal that is none of ours.

FUZZ_MINUTES=10 fuzzes for so long, by other requests every time, and prints the seeds: FUZZ_SEED begins with one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
from tests.integration.auditing import entries
from tests.integration.wire import argv, seconds, shell
from tests.security.requests import PROCESS, WORKSPACE, Sending, sendings
from tests.support.messages import METHODS
from tests.support.service import ServedProcess

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
EXAMPLES = 130
"""Of AT_ONCE calls at the same time."""
AT_ONCE = 8
WAITING = {"Stream", "Attach", "WaitProcess", "WatchDirectory"}
"""May last until their client has had enough."""
PATIENCE = 0.1
ANSWER_TIMEOUT = 30.0
"""Seconds that any other call may take."""
CROSSED = "Internal error from Core"
"""What gRPC for Python says in a client whose message crosses a refusal, which it then does not tell."""
DEFECTS = {"CANCELLED", "INTERNAL", "UNKNOWN"}
SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Target:
    """A service with a workspace and a process that requests may name, which are made again when they are gone."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.stub: Any = pb_grpc.WorkspaceServiceStub(channel)
        self.codes: Counter[str] = Counter()
        self._ids: dict[bytes, bytes] = {}

    async def refresh(self) -> None:
        """Sees to it that the workspace and the process are there, and few others."""
        here = self._ids.get(WORKSPACE.encode(), b"").decode()
        listed = (await self.stub.ListWorkspaces(pb.ListWorkspacesRequest())).workspaces
        for workspace in listed:
            if workspace.workspace_id != here:
                await self._destroy(workspace.workspace_id)
        lives = {workspace.workspace_id for workspace in listed if workspace.state == pb.WORKSPACE_STATE_READY}
        if here not in lives or random.random() < 0.05:
            await self._destroy(here)
            await self._make()

    async def _make(self) -> None:
        request = pb.CreateWorkspaceRequest(provider="local", lease_duration=seconds(3600))
        here = (await self.stub.CreateWorkspace(request)).workspace.workspace_id
        started = pb.ProcessStart(command=shell("exec sleep 3600"), detached=True)
        stream = self.stub.Stream(pb.StreamRequest(workspace_id=here, start=started))
        process = (await stream.read()).started.process_id
        stream.cancel()
        self._ids = {WORKSPACE.encode(): here.encode(), PROCESS.encode(): process.encode()}
        assert all(len(placeholder) == len(real) for placeholder, real in self._ids.items())

    async def _destroy(self, workspace_id: str) -> None:
        # One that a request destroys meanwhile is gone, too.
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace_id))

    async def send(self, sending: Sending) -> str:
        """Sends a call and returns the name of the code that it is answered with, which must not be a defect's."""
        code, words = "OK", ""
        try:
            await self._answer(sending)
        except asyncio.CancelledError:  # grpc.aio's word for a call with the status CANCELLED
            task = asyncio.current_task()
            assert task is not None
            if task.cancelling():
                raise
            # Where the server's clock is the first to see the deadline, its reset of the stream overtakes the client's.
            code = "DEADLINE_EXCEEDED" if sending.method in WAITING else "CANCELLED"
        except grpc.aio.AioRpcError as error:
            code, words = str(error.code().name), f"{error.details()} {error.debug_error_string()}"
        if CROSSED in words:
            return "CROSSED"
        assert code not in DEFECTS, f"{sending}: {words}"
        assert code != "DEADLINE_EXCEEDED" or sending.method in WAITING, f"it hangs: {sending}"
        return code

    async def _answer(self, sending: Sending) -> None:
        messages = [self._with_ids(message) for message in sending.messages]
        descriptor = METHODS[sending.method]
        path = f"/{descriptor.containing_service.full_name}/{sending.method}"
        timeout = PATIENCE if sending.method in WAITING else ANSWER_TIMEOUT
        kind = "_".join(
            "stream" if streaming else "unary"
            for streaming in (descriptor.client_streaming, descriptor.server_streaming)
        )
        rpc: Any = getattr(self._channel, kind)(path)
        call = rpc(iter(messages) if descriptor.client_streaming else messages[0], timeout=timeout)
        if not descriptor.server_streaming:
            await call
        else:
            async for _ in call:
                pass

    def _with_ids(self, message: bytes) -> bytes:
        for placeholder, real in self._ids.items():
            message = message.replace(placeholder, real)
        return message

    async def works(self) -> None:
        """Fails where the service does not do its work."""
        await self._make()
        request = pb.ExecuteRequest(workspace_id=self._ids[WORKSPACE.encode()].decode(), command=argv("echo", "sane"))
        assert (await self.stub.Execute(request, timeout=ANSWER_TIMEOUT)).stdout.head == b"sane\n"


@pytest.fixture(scope="module")
def directory_of_fuzzed(private_temporary_directory: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


@pytest.fixture(scope="module")
def fuzzed(directory_of_fuzzed: Path, own_interpreter_first: None) -> Iterator[ServedProcess]:
    directory = directory_of_fuzzed
    with ServedProcess(
        *("--address", f"unix:{directory}/grpc.sock", "--max-workspaces", "12", "--log-level", "warning"),
        *("--audit-log", str(directory / "audit.jsonl")),
        environment={"DOCKER_HOST": f"unix://{directory}/no-engine.sock"},
    ) as served:
        yield served


@pytest.fixture
def ground(warm: None, fuzzed: ServedProcess) -> None:
    """The service is up before accounts are taken."""


def fuzz(runner: asyncio.Runner, target: Target, settings: hypothesis.settings, seed: int) -> None:
    """Sends calls, AT_ONCE at a time."""

    async def send(batch: list[Sending]) -> None:
        await target.refresh()
        async with asyncio.timeout(2 * ANSWER_TIMEOUT):
            target.codes.update(await asyncio.gather(*map(target.send, batch)))

    @hypothesis.seed(seed)
    @settings
    @given(st.lists(sendings(), min_size=AT_ONCE, max_size=AT_ONCE))
    def every_batch(batch: list[Sending]) -> None:
        runner.run(send(batch))

    every_batch()


@pytest.mark.timeout(60 * MINUTES + 240)
def test_every_request_is_answered_and_none_by_a_defect(
    fuzzed: ServedProcess, directory_of_fuzzed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    until = time.monotonic() + 60 * MINUTES
    with asyncio.Runner() as runner:
        channel = runner.run(_opened(fuzzed.target))
        target = Target(channel)
        try:
            fuzz(runner, target, SETTINGS, SEED)
            while time.monotonic() < until:
                seed = random.randrange(2**32)
                with capsys.disabled():
                    print(f"\nseed {seed}, after {target.codes.total()} calls: {dict(target.codes.most_common())}")
                fuzz(runner, target, SETTINGS, seed)
            runner.run(target.works())
        except BaseException as error:
            error.add_note(fuzzed.log[-10_000:])
            raise
        finally:
            runner.run(_closed(target, channel))
    assert fuzzed.process.poll() is None
    assert not [words for words in ("Traceback", "defect") if words in fuzzed.log], fuzzed.log
    audited = entries(directory_of_fuzzed / "audit.jsonl")
    assert not [entry for entry in audited if entry.get("code") == "INTERNAL"]
    assert len(audited) > target.codes.total()
    assert target.codes["OK"] > 100, "most requests are refused for their ids: the fuzzer has gone blunt"


async def _opened(target: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(target)


async def _closed(target: Target, channel: grpc.aio.Channel) -> None:
    for workspace in (await target.stub.ListWorkspaces(pb.ListWorkspacesRequest())).workspaces:
        await target.stub.DestroyWorkspace(pb.DestroyWorkspaceRequest(workspace_id=workspace.workspace_id))
    await channel.close()
