"""Standard health checks and reflection: what meshes, load balancers and clients in other languages rely on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.rpc.health import MAX_WATCHES
from tests.integration.cli import run
from tests.integration.wire import EventReader, a_workspace, connected, host_file, shell, start
from tests.support import h2
from tests.support.eventually import eventually
from tests.support.service import ServedProcess

SERVICE = "agentic_isolation.v1.WorkspaceService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def test_health(service: ServedProcess) -> None:
    async with grpc.aio.insecure_channel(service.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await health.Check(health_pb2.HealthCheckRequest(service="unknown"))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_of_all_services(service: ServedProcess) -> None:
    messages: Any = health_pb2  # the type stubs lack those of List
    async with grpc.aio.insecure_channel(service.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        listed = (await health.List(messages.HealthListRequest())).statuses
        assert {name: answer.status for name, answer in listed.items()} == {"": SERVING, SERVICE: SERVING}


@pytest.mark.parametrize("messages", [[b"", b"\xff"], [b"\xff"]], ids=["the second one", "the first one"])
async def test_reflection_of_what_is_no_request(service: ServedProcess, messages: list[bytes]) -> None:
    """It is refused as any other bad input, and the service does not complain of itself.

    Nothing follows it: a message that crosses its refusal shows as INTERNAL in gRPC for Python.
    """
    async with grpc.aio.insecure_channel(service.target) as channel:
        method: Any = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for _ in method(iter(messages)):
                pass
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_watched_health_of_an_unknown_service(service: ServedProcess) -> None:
    async with grpc.aio.insecure_channel(service.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="unknown"))
        assert (await watch.read()).status == SERVICE_UNKNOWN
        watch.cancel()


async def test_watches_are_bounded_and_checks_are_not(service: ServedProcess) -> None:
    """Anybody may watch, for as long as they like, and each watch takes memory."""
    asked = health_pb2.HealthCheckRequest()
    async with grpc.aio.insecure_channel(service.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watches = []
        for _ in range(0, MAX_WATCHES, 100):  # of more at once the service would have some wait
            some = [health.Watch(asked) for _ in range(100)]
            assert {(await watch.read()).status for watch in some} == {SERVING}
            watches += some
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await health.Watch(asked).read()
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await health.Check(asked)).status == SERVING
        watches.pop().cancel()

        async def may_watch() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                watch = health.Watch(asked)
                watches.append(watch)
                return bool((await watch.read()).status == SERVING)
            return False

        await eventually(may_watch, "the place of who has gone is free")
        for watch in watches:
            watch.cancel()


async def test_health_while_the_service_stops(directory: Path) -> None:
    """Those who watch are told at once, while a running call still has its grace; nothing new begins."""
    with ServedProcess("--address", f"unix:{directory}/grpc.sock", "--grace", "30") as service:
        async with connected(service.target) as stub, grpc.aio.insecure_channel(service.target) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            watches = [health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", SERVICE)]
            assert [(await watch.read()).status for watch in watches] == [SERVING, SERVING]
            async with a_workspace(stub) as workspace:
                command = shell("echo ready; until [ -e go ]; do sleep 0.05; done; echo done")
                async with EventReader(stub, start(workspace, command)) as running:
                    await running.until("output")
                    service.process.send_signal(signal.SIGTERM)
                    assert [(await watch.read()).status for watch in watches] == [NOT_SERVING, NOT_SERVING]
                    for watch in watches:
                        watch.cancel()
                    host_file(workspace, "go").touch()
                    assert (await running.to_end()).exit_code == 0
                    assert running.text() == b"ready\ndone\n"
        assert await asyncio.to_thread(service.process.wait, 20) == 0


async def test_watcher_who_takes_nothing_holds_nobody_up(directory: Path) -> None:
    """Its messages wait for ever; it is in the way neither of those who watch the same, nor of the end."""
    with ServedProcess("--address", f"unix:{directory}/grpc.sock", "--grace", "30") as service:
        reader, writer = await asyncio.open_unix_connection(service.target.removeprefix("unix:"))
        async with grpc.aio.insecure_channel(service.target) as channel:
            writer.write(h2.PREFACE + h2.frame(h2.SETTINGS, h2.WINDOW_OF_NOTHING))
            writer.write(
                h2.frame(h2.HEADERS, h2.call_headers("/grpc.health.v1.Health/Watch"), h2.END_HEADERS, stream=1)
            )
            writer.write(h2.frame(h2.DATA, bytes(5), h2.END_STREAM, stream=1))
            while (await h2.kind_of_next(reader))[0] != h2.HEADERS:
                pass
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest())
            async with asyncio.timeout(10):
                assert (await watch.read()).status == SERVING
                service.process.send_signal(signal.SIGTERM)
                assert (await watch.read()).status == NOT_SERVING
        assert await asyncio.to_thread(service.process.wait, 10) == 0
        writer.close()


def test_channelz_only_where_it_is_asked_for(service: ServedProcess, directory: Path) -> None:
    """It tells of everybody's connections."""
    everything = channelz_pb2.GetServersRequest()
    with grpc.insecure_channel(service.target) as channel, pytest.raises(grpc.RpcError) as raised:
        channelz_pb2_grpc.ChannelzStub(channel).GetServers(everything)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with (
        ServedProcess("--address", f"unix:{directory}/grpc.sock", "--channelz") as other,
        grpc.insecure_channel(other.target) as channel,
    ):
        [server] = channelz_pb2_grpc.ChannelzStub(channel).GetServers(everything).server
        assert server.data.calls_started == 1
        assert "grpc.channelz.v1.Channelz" in Stranger(channel).database.get_services()


def test_health_command(service: ServedProcess) -> None:
    done = run("health", "--target", service.target)
    assert (done.stdout, done.stderr, done.returncode) == ("SERVING\n", "", 0)


async def test_health_command_while_the_service_stops(directory: Path) -> None:
    command = shell("until [ -e go ]; do sleep 0.05; done")
    with ServedProcess("--address", f"unix:{directory}/grpc.sock", "--grace", "30") as service:
        async with (
            connected(service.target) as stub,
            a_workspace(stub) as workspace,
            EventReader(stub, start(workspace, command)) as running,
        ):
            await running.until("started")
            service.process.send_signal(signal.SIGTERM)
            done = await asyncio.to_thread(run, "health", "--target", service.target)
            assert (done.stdout, done.stderr, done.returncode) == ("NOT_SERVING\n", "", 1)
            host_file(workspace, "go").touch()
            assert (await running.to_end()).exit_code == 0
        assert await asyncio.to_thread(service.process.wait, 20) == 0


def test_health_command_without_a_service(directory: Path) -> None:
    done = run("health", "--target", f"unix:{directory}/nowhere.sock")
    assert (done.stdout, done.returncode) == ("", 125)
    assert "nowhere.sock" in done.stderr


def test_health_command_of_a_service_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        done = run("health", "--target", f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.5")
        took = time.monotonic() - began
    assert (done.stdout, done.returncode) == ("", 125)
    assert took < 10, "the default patience of a call is a minute"


class Stranger:
    """A client that knows nothing but the service's address: all else it learns by reflection, as grpcurl does."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self._pool = DescriptorPool(self.database)

    def methods(self) -> list[str]:
        """Returns the names of the service's methods."""
        return [method.name for method in self._pool.FindServiceByName(SERVICE).methods]

    def call(self, rpc: str, **fields: Any) -> Iterator[Any]:
        """Calls an RPC with a request of plain values and yields its responses."""
        method = self._pool.FindServiceByName(SERVICE).FindMethodByName(rpc)
        path, request = f"/{SERVICE}/{rpc}", GetMessageClass(method.input_type)(**fields)
        codecs: Any = {
            "request_serializer": type(request).SerializeToString,
            "response_deserializer": GetMessageClass(method.output_type).FromString,
        }
        if method.server_streaming:
            yield from self._channel.unary_stream(path, **codecs)(request, timeout=30)
        else:
            yield self._channel.unary_unary(path, **codecs)(request, timeout=30)


def test_reflection_tells_the_service_and_its_methods(service: ServedProcess) -> None:
    with grpc.insecure_channel(service.target) as channel:
        services = Stranger(channel).database.get_services()
        methods = Stranger(channel).methods()
    assert {SERVICE, "grpc.health.v1.Health"} <= set(services)
    assert methods == [method.name for method in pb.DESCRIPTOR.services_by_name["WorkspaceService"].methods]


def test_stranger_uses_the_service_by_reflection_alone(service: ServedProcess) -> None:
    with grpc.insecure_channel(service.target) as channel:
        stranger = Stranger(channel)
        (made,) = stranger.call("CreateWorkspace", provider="local", labels={"by": "a stranger"})
        workspace_id = made.workspace.workspace_id
        command = {"shell": "echo hello; cat >&2; exit 6", "stdin": b"from stdin", "timeout": {"seconds": 10}}
        (result,) = stranger.call("Execute", workspace_id=workspace_id, command=command)
        assert (result.stdout.head, result.stderr.head) == (b"hello\n", b"from stdin")
        assert result.termination.exit_code == 6
        argv = {"argv": {"args": ["printf", "%s", "one two"]}}
        events = list(stranger.call("Stream", workspace_id=workspace_id, start={"command": argv}))
        assert [event.WhichOneof("event") for event in events] == ["started", "output", "exited"]
        assert events[1].output.data == b"one two"
        (listed,) = stranger.call("ListWorkspaces", labels={"by": "a stranger"})
        assert [workspace.workspace_id for workspace in listed.workspaces] == [workspace_id]
        assert list(stranger.call("DestroyWorkspace", workspace_id=workspace_id))
        with pytest.raises(grpc.RpcError) as raised:
            list(stranger.call("GetWorkspace", workspace_id=workspace_id))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
