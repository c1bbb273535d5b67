"""One service hands over to the next: health, calls and streams in a drain, a rolling restart, and neighbours."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.engine import Engine
from tests.integration.lasting import LINGER, create, destroy, execute, lasting, listed, output, written
from tests.integration.wire import EventReader, connected, host_file, refused, resume, shell, start
from tests.support.engine_leaks import containers
from tests.support.eventually import eventually
from tests.support.program import python_environment
from tests.support.service import ServedProcess

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
WAIT = "touch began; echo began >> waits; until [ -e go ]; do sleep 0.05; done; echo done"
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def ground(warm: None) -> None:
    """Nothing is asked of the shared service here."""


async def not_serving(target: str) -> None:
    """Waits until a service says that it wants no more calls."""
    async with grpc.aio.insecure_channel(target) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        async def said() -> bool:
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)  # type: ignore[attr-defined]
            return bool(answer.status == NOT_SERVING)

        await eventually(said, "health says NOT_SERVING")


async def test_drain_lets_calls_finish_and_streams_be_resumed(directory: Path) -> None:
    async with lasting(directory, "--grace", "30") as service:
        async with service.running() as stub:
            workspace = (await stub.CreateWorkspace(create("local"))).workspace
            running = asyncio.ensure_future(stub.Execute(execute(workspace, WAIT)))
            await eventually(host_file(workspace, "began").exists, "the command runs")
            line = "echo one; until [ -e go ]; do sleep 0.05; done; echo two"
            async with EventReader(stub, start(workspace, shell(line), linger=LINGER)) as first:
                await first.until("output")
                ended = asyncio.ensure_future(service.end(signal.SIGTERM))
                await not_serving(service.process.target)
                assert not running.done()
                host_file(workspace, "go").touch()
                assert (await running).stdout.head == b"done\n"
                try:
                    await first.to_end()
                except grpc.aio.AioRpcError as error:
                    assert error.code() is UNAVAILABLE  # noqa: PT017  the stream may also have come to its end
            await ended
        async with service.running() as stub:
            async with EventReader(stub, resume(workspace, first.process_id, first.offset)) as second:
                assert (await second.to_end()).exit_code == 0
            assert first.text() + second.text() == b"one\ntwo\n"


async def test_streams_that_linger_do_not_delay_a_drain(directory: Path) -> None:
    """They end with UNAVAILABLE long before the grace, because their clients lose nothing."""
    async with lasting(directory, "--grace", "600") as service:
        async with service.running() as stub:
            workspace = (await stub.CreateWorkspace(create("local"))).workspace
            line = "echo one; until [ -e go ]; do sleep 0.05; done; echo two"
            async with EventReader(stub, start(workspace, shell(line), linger=LINGER)) as first:
                await first.until("output")
                ended = asyncio.ensure_future(service.end(signal.SIGTERM))
                with refused(UNAVAILABLE, "UNAVAILABLE") as caught:
                    await first.to_end()
                assert "the server drains; resume" in caught.message
                await ended
        async with service.running() as stub:
            host_file(workspace, "go").touch()
            async with EventReader(stub, resume(workspace, first.process_id, first.offset)) as second:
                assert (await second.to_end()).exit_code == 0
            assert second.text() == b"two\n"


async def test_rolling_restart(directory: Path) -> None:
    """The next service waits for the one before it, and then has what that one had."""
    async with lasting(directory, "--grace", "30") as service:
        async with service.running() as stub:
            workspace = (await stub.CreateWorkspace(create("local"))).workspace
            request = execute(workspace, WAIT, request_id="one", linger=LINGER)
            running = asyncio.ensure_future(stub.Execute(request))
            await written(stub, workspace, "waits")
            options = ["--address", f"unix:{directory}/next.sock", "--state-dir", str(service.state)]
            starting = asyncio.ensure_future(asyncio.to_thread(ServedProcess, *options))
            ended = asyncio.ensure_future(service.end(signal.SIGTERM))
            await not_serving(service.process.target)
            assert not starting.done()
            host_file(workspace, "go").touch()
            result = await running
            await ended
        with await starting as following:
            async with connected(following.target) as stub:
                assert workspace.workspace_id in await listed(stub)
                assert await stub.Execute(request) == result
                await destroy(stub, workspace.workspace_id)


async def test_service_that_waits_for_another_one_can_be_stopped(directory: Path) -> None:
    """It waits for minutes, but not when it is told to end."""
    async with lasting(directory) as service, service.running():
        waiting = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentic_isolation_service", "serve", "--takeover-timeout", "600"),
            *("--address", f"unix:{directory}/next.sock", "--state-dir", str(service.state)),
            env=python_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert waiting.stderr is not None
            assert b"waiting 600 s" in await waiting.stderr.readline()
            waiting.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                said, complaints = await waiting.communicate()
        finally:
            if waiting.returncode is None:
                waiting.kill()
                await waiting.wait()
        assert (waiting.returncode, said) == (0, b"")
        assert b"Traceback" not in complaints


@pytest.mark.docker
async def test_two_state_directories_on_one_engine(directory: Path, engine: Engine) -> None:
    """Their services neither see nor touch each other's workspaces, also when both start again."""
    async with lasting(directory / "a") as one, lasting(directory / "b") as two:
        made = []
        for service in (one, two):
            async with service.running() as stub:
                made.append((await stub.CreateWorkspace(create("runc"))).workspace)
        await asyncio.gather(one.end(signal.SIGKILL), two.end(signal.SIGKILL))
        for service, mine, other in ((one, made[0], made[1]), (two, made[1], made[0])):
            async with service.running() as stub:
                assert set(await listed(stub)) == {mine.workspace_id}
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await stub.Execute(execute(other, "true"))
                assert raised.value.code() is grpc.StatusCode.NOT_FOUND
                with pytest.raises(grpc.aio.AioRpcError):
                    await destroy(stub, other.workspace_id)
        # One that ends all it has leaves the other's alone.
        async with one.running() as stub:
            await destroy(stub, made[0].workspace_id)
        async with two.running() as stub:
            assert await output(stub, made[1], "echo here") == b"here\n"
        assert len(containers(engine)) == 1
