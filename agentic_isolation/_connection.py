"""The channel to a service, and its statuses as the errors of the tree."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from agentic_isolation.errors import (
    DeadlineError,
    InvalidArgumentError,
    IsolationError,
    UnavailableError,
    UnsupportedError,
    error_classes,
)
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc

CALL_TIMEOUT = 60.0
"""Seconds that a call may take which waits for no command."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    # Execute answers with up to 16 MiB of each of stdout and stderr.
    ("grpc.max_receive_message_length", (32 << 20) + (1 << 20)),
    # A peer that has silently gone is noticed by pings, so that waiting for a long command needs no deadline.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Without probing for more, 64 KiB of each stream are under way. What is under way is lost when a stream is cut, and
    # must be less than what the guest keeps for those who resume; probing grows it to many megabytes.
    ("grpc.http2.bdp_probe", 0),
)
_DETAILS_KEY = "grpc-status-details-bin"
_BY_CODE: dict[grpc.StatusCode, type[IsolationError]] = {
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.UNIMPLEMENTED: UnsupportedError,
}


class Connection:
    """A channel to a service. Its methods raise IsolationError only, never RpcError.

    Args:
        target: `host:port` or `unix:PATH`.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self.stub: pb_grpc.WorkspaceServiceAsyncStub = pb_grpc.WorkspaceServiceStub(self._channel)

    async def call(self, method: Callable[..., Any], request: Any, *, timeout: float | None = CALL_TIMEOUT) -> Any:
        """Calls a method that answers once.

        Args:
            method: A method of `stub`.
            request: Its request, or an iterator of them.
            timeout: Seconds to wait for the answer; None: for ever.

        Raises:
            IsolationError: What the service answered, or that it could not be reached.
        """
        with self._translated():
            return await method(request, timeout=timeout)

    async def iterate(self, responses: AsyncIterable[Any]) -> AsyncIterator[Any]:
        """Yields a streaming call's responses.

        Raises:
            IsolationError: How the call ended instead.
        """
        with self._translated():
            async for response in responses:
                yield response

    async def aclose(self) -> None:
        """Closes the channel and cancels its calls."""
        await self._channel.close(None)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise error_of(error, self.target) from error
        except grpc.aio.UsageError as error:
            raise UnavailableError(f"the connection to {self.target} is closed") from error


def error_of(error: grpc.aio.AioRpcError, target: str) -> IsolationError:
    """Returns the error of the tree that a status stands for: by its ErrorInfo's reason, else by its code."""
    reason, field, description = None, None, None
    metadata: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            reason, field, description = _details(value)
    kind = error_classes().get(reason or "")
    if kind is not None:
        return kind(description or error.details() or "", field=field)
    kind = _BY_CODE.get(error.code(), IsolationError)
    return kind(f"{target} answered {error.code().name}: {error.details()}")


def _details(serialized: bytes) -> tuple[str | None, str | None, str | None]:
    """Returns reason, field and the field's description from a google.rpc.Status."""
    reason = field = description = None
    with contextlib.suppress(DecodeError):
        for detail in Status.FromString(serialized).details:
            info, bad = ErrorInfo(), BadRequest()
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(bad) and bad.field_violations:
                field, description = bad.field_violations[0].field, bad.field_violations[0].description
    return reason, field, description
