"""Traces from a program's span over the service's call to what a command is told, and to whoever collects spans."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agentic_isolation import AgenticWorkspace
from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.lasting import execute
from tests.integration.wire import EventReader, a_workspace, connected, refused, shell, start
from tests.support.eventually import eventually
from tests.support.otlp import Collector, attributes, collecting
from tests.support.program import python_environment
from tests.support.service import ServedProcess
from tests.support.spans import active_span

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
TELL = 'echo "$TRACEPARENT|$TRACESTATE"'
SERVICE = "agentic_isolation.v1.WorkspaceService"


def tells_of(told: str, span: Span) -> bool:
    """Returns whether a traceparent is that of a span which is recorded."""
    return told[:53] == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-" and int(told[53:55], 16) & 1 == 1


@contextlib.asynccontextmanager
async def traced(
    directory: Path, more: str = "", *, address: str | None = None
) -> AsyncIterator[tuple[ServedProcess, Collector]]:
    """A service that sends its spans to a collector."""
    config, address = directory / "config.toml", address or f"unix:{directory}/grpc.sock"
    async with collecting() as collector:
        config.write_text(f'[tracing]\nendpoint = "{collector.endpoint}"\n{more}')
        with ServedProcess(
            *("--address", address, "--config", str(config)),
            environment={"OTEL_BSP_SCHEDULE_DELAY": "50", "DOCKER_HOST": f"unix://{directory}/no-engine"},
        ) as service:
            yield service, collector
            assert "Failed" not in service.log, "to detach a context, or to export"
            await asyncio.to_thread(service.stop)


async def test_one_trace_from_the_agent_to_its_command(directory: Path) -> None:
    async with traced(directory, 'service_name = "isolation"') as (service, collector):
        with active_span() as maker:
            workspace = await AgenticWorkspace.create(provider="local", target=service.target, lease=1)
        try:
            with active_span() as agent:
                told = (await workspace.execute("echo $TRACEPARENT; : hush-hush", env={"QUIET": "very quiet"})).stdout

            span = await collector.one(lambda span: span.name == f"{SERVICE}/Execute")
            assert agent.startswith(f"00-{span.trace_id.hex()}-{span.parent_span_id.hex()}-")
            assert tells_of(told, span)
            assert span.kind == Span.SPAN_KIND_SERVER
            assert span.end_time_unix_nano > span.start_time_unix_nano
            found = attributes(span)
            process_id = str(found.pop("agentic_isolation.process_id"))
            assert process_id.startswith("r-")
            assert str(found.pop("rpc.user_agent")).startswith("grpc-python-asyncio/")
            assert found == {
                "rpc.system": "grpc",
                "rpc.service": SERVICE,
                "rpc.method": "Execute",
                "rpc.grpc.status_code": 0,
                "agentic_isolation.code": "OK",
                "agentic_isolation.workspace_id": workspace.info.id,
            }
            assert collector.resources()["service.name"] == "isolation"
            assert collector.scopes == {"opentelemetry.instrumentation.grpc"}, "the official one"

            with active_span() as agent:
                assert [line async for line in workspace.stream("echo streamed >&2; echo $TRACEPARENT")] != []
            span = await collector.one(lambda span: span.name == f"{SERVICE}/Stream")
            assert agent.startswith(f"00-{span.trace_id.hex()}-{span.parent_span_id.hex()}-")
            # What a program does without a span begins a trace of its own.
            assert (await workspace.execute("echo $TRACEPARENT")).stdout[3:35] not in agent
            # Nor are renewals the work of whoever has made the workspace.
            await eventually(lambda: any("Renew" in span.name for span in collector.spans), "the lease is renewed")
            of_maker = [span.name for span in collector.spans if span.trace_id.hex() in maker]
            assert of_maker == [f"{SERVICE}/CreateWorkspace"]
        finally:
            await workspace.close()
        await collector.one(lambda span: span.name == f"{SERVICE}/DestroyWorkspace")
    written = b"".join(request.SerializeToString() for request in collector.requests)
    for secret in (b"hush-hush", b"very quiet", b"QUIET", b"TRACEPARENT", b"streamed", str(directory).encode()):
        assert secret not in written


async def test_refused_calls_and_repeated_requests_have_spans_of_their_own(directory: Path) -> None:
    async with traced(directory) as (service, collector):
        async with connected(service.target) as stub, a_workspace(stub) as workspace:
            with refused(grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND"):
                await stub.StatFile(pb.StatFileRequest(workspace_id=workspace.workspace_id, path="hidden-name"))
            request = execute(workspace, TELL, request_id="again")
            first, second = [bytes((await stub.Execute(request)).stdout.head) for _ in range(2)]
        await collector.one(lambda span: span.name.endswith("/DestroyWorkspace"))
        stat = await collector.one(lambda span: span.name.endswith("/StatFile"))
    assert stat.status.code == Status.STATUS_CODE_UNSET, "what a client has asked wrongly is no fault of the service"
    assert (attributes(stat)["agentic_isolation.code"], attributes(stat)["rpc.grpc.status_code"]) == ("NOT_FOUND", 5)
    assert attributes(stat)["error.type"] == "FILE_NOT_FOUND"
    assert not stat.events
    assert b"hidden-name" not in b"".join(request.SerializeToString() for request in collector.requests)
    one, two = [span for span in collector.spans if span.name.endswith("/Execute")]
    assert one.trace_id != two.trace_id
    assert first == second, "it ran once"
    assert tells_of(first.decode(), one)
    assert collector.resources()["service.name"] == "agentic-isolation"


async def test_spans_tell_how_calls_end_that_do_not_answer(directory: Path) -> None:
    async with traced(directory) as (service, collector):
        async with connected(service.target) as stub, a_workspace(stub) as workspace:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stub.Execute(execute(workspace, "sleep 60")), 0.5)
            async with EventReader(stub, start(workspace, shell("sleep 60"))) as begun:
                assert await begun.next() == "started"
            with refused(grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE"):
                await stub.CreateWorkspace(pb.CreateWorkspaceRequest(provider="docker"))
        execution = await collector.one(lambda span: span.name.endswith("/Execute"))
        stream = await collector.one(lambda span: span.name.endswith("/Stream"))
        unavailable = await collector.one(lambda span: attributes(span).get("agentic_isolation.code") == "UNAVAILABLE")
    for span in execution, stream:
        assert (attributes(span)["agentic_isolation.code"], attributes(span)["rpc.grpc.status_code"]) == (
            "CANCELLED",
            1,
        )
        assert attributes(span)["agentic_isolation.workspace_id"] == workspace.workspace_id
        assert span.status.code == Status.STATUS_CODE_UNSET, "it is the client's wish"
    assert unavailable.status.code == Status.STATUS_CODE_ERROR
    assert b"no-engine" not in b"".join(request.SerializeToString() for request in collector.requests)
    assert not any(span.events for span in collector.spans)


@pytest.mark.parametrize(
    ("address", "more", "peer"),
    [
        ("127.0.0.1:0", "", {"net.peer.ip": "127.0.0.1", "net.peer.name": "localhost"}),
        ("[::1]:0", "", {"net.peer.ip": "[::1]", "net.peer.name": "localhost"}),
        ("unix:{}/grpc.sock", "", {}),
        ("unix:{}/grpc.sock", "[unix]\n", {}),
    ],
)
async def test_spans_have_the_address_of_the_other_end_where_it_has_one(
    directory: Path, address: str, more: str, peer: dict[str, str]
) -> None:
    async with traced(directory, more, address=address.format(directory)) as (service, collector):
        async with connected(service.target) as stub:
            await stub.GetServerInfo(pb.GetServerInfoRequest())
        found = attributes(await collector.one(lambda span: True))
    assert {key: value for key, value in found.items() if key in ("net.peer.ip", "net.peer.name")} == peer


async def test_only_the_share_of_traces_that_was_asked_for(directory: Path) -> None:
    """A trace that its client records is recorded here too; what begins here is not, and commands are told so."""
    async with (
        traced(directory, "sample_ratio = 0") as (service, collector),
        connected(service.target) as stub,
        a_workspace(stub) as workspace,
    ):
        told = (await stub.Execute(execute(workspace, TELL))).stdout.head
        assert int(told[53:55], 16) & 1 == 0
        metadata = (("traceparent", PARENT), ("tracestate", "vendor=a:b"))
        told = (await stub.Execute(execute(workspace, TELL), metadata=metadata)).stdout.head
        span = await collector.one(lambda span: True)
        assert told == f"00-{TRACE}-{span.span_id.hex()}-01|vendor=a:b\n".encode()
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)


async def test_service_ends_soon_although_nobody_takes_its_spans(directory: Path) -> None:
    config = directory / "config.toml"
    config.write_text('[tracing]\nendpoint = "http://127.0.0.1:9"')
    with ServedProcess("--address", f"unix:{directory}/grpc.sock", "--config", str(config)) as service:
        async with connected(service.target) as stub, a_workspace(stub) as workspace:
            assert (await stub.Execute(execute(workspace, "echo works"))).stdout.head == b"works\n"
        service.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert await asyncio.to_thread(service.process.wait, 20) == 0
        assert time.monotonic() - began < 5, "an unreachable collector would be tried for 10 s"
        assert "the last spans could not be sent" in service.log


def test_traces_without_opentelemetry_are_refused(directory: Path) -> None:
    (directory / "nothing" / "opentelemetry").mkdir(parents=True)
    (directory / "nothing" / "opentelemetry" / "__init__.py").touch()
    config = directory / "config.toml"
    config.write_text("[tracing]")
    environment = python_environment()
    environment["PYTHONPATH"] = f"{directory}/nothing{os.pathsep}{environment['PYTHONPATH']}"
    refused = subprocess.run(
        [sys.executable, "-m", "agentic_isolation_service", "serve", "--config", str(config)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert refused.returncode != 0
    assert "tracing: [tracing] is configured" in refused.stderr
    assert "pip install 'agentic-isolation[otel]'" in refused.stderr
    assert "Traceback" not in refused.stderr
