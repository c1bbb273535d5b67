"""A collector of spans, as they come by OTLP over gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.eventually import eventually


@dataclass
class Collector(pb_grpc.TraceServiceServicer):
    """What has come."""

    endpoint: str = ""
    requests: list[pb.ExportTraceServiceRequest] = field(default_factory=list)

    async def Export(self, request: pb.ExportTraceServiceRequest, context: Any) -> pb.ExportTraceServiceResponse:
        self.requests.append(request)
        return pb.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def scopes(self) -> set[str]:
        """Names of the instrumentation that has made the spans."""
        return {
            scope.scope.name
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
        }

    async def one(self, wanted: Callable[[Span], bool]) -> Span:
        """Waits for the one span that is wanted."""
        await eventually(lambda: any(map(wanted, self.spans)), "the span has come")
        [found] = filter(wanted, self.spans)
        return found

    def resources(self) -> dict[str, str]:
        """Returns the attributes of whatever has sent spans."""
        return {
            attribute.key: attribute.value.string_value
            for request in self.requests
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
        }


def attributes(span: Span) -> dict[str, str | int]:
    """Returns the attributes of a span."""
    return {
        attribute.key: attribute.value.string_value
        if attribute.value.HasField("string_value")
        else attribute.value.int_value
        for attribute in span.attributes
    }


@contextlib.asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Runs a collector on a free port."""
    server, collector = grpc.aio.server(), Collector()
    pb_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(0)
