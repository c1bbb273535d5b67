"""How many calls have arrived and wait to be accepted.

gRPC's core takes calls in as they come, and hands out one of each registered method, and one of all others, at a time
to the event loop. What waits there is seen by nobody here, as long as the loop is busy with what it has: the loop is
not even late. But the core counts for channelz what it takes in and what has ended, and what has been handed out is
counted here.

What the core never hands out, as it refuses it itself or its caller has gone meanwhile, it does not count as ended.
Its connections do. To ask each of them takes a tenth of a millisecond, so it is done now and then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from agentic_isolation_service.rpc.calls import at_the_end

FEW = 64
"""Calls that may wait whatever they take."""
_RECOUNTING = 0.02
"""The share of the time that may go by with asking connections."""
_SHORTEST = 0.25
"""Seconds between two times at least."""

# What the package grpcio-channelz is made of. Without it, waiting calls are not seen, and only a late loop is.
_CHANNELZ: Any = cygrpc if hasattr(cygrpc, "channelz_get_server") else None


class Backlog(grpc.aio.ServerInterceptor):
    """Counts the calls that are handed out, of whichever service; must be a server's first interceptor."""

    def __init__(self) -> None:
        self.accepted = 0
        """Calls that were handed out, in all."""
        self._ended = 0
        self._never_accepted = 0
        self._recount_at = 0.0
        self._server_id: int | None = None

    def made(self, make: Callable[[], grpc.aio.Server]) -> grpc.aio.Server:
        """Returns the server that `make` makes, which is the one whose calls are counted."""
        before = _server_ids()
        server = make()
        self._server_id = max(_server_ids() - before, default=None)
        return server

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Counts a call until its task ends: it is run in one from here to its end."""
        self.accepted += 1
        at_the_end(self._note_end)
        return await continuation(handler_call_details)

    def waiting(self) -> int:
        """Returns how many calls wait; 0 for a few, as some are always just beginning or ending."""
        if self._server_id is None or _CHANNELZ is None:
            return 0
        try:
            open_calls = _open(json.loads(_CHANNELZ.channelz_get_server(self._server_id))["server"]["data"], "calls")
            waiting = open_calls - (self.accepted - self._ended)
            began = time.monotonic()
            if waiting - self._never_accepted > FEW and began >= self._recount_at:
                open_streams = sum(_open(data, "streams") for data in _connections(self._server_id))
                self._never_accepted = open_calls - open_streams
                took = time.monotonic() - began
                self._recount_at = began + max(took / _RECOUNTING, _SHORTEST)
        except ValueError:  # it was stopped
            return 0
        waiting -= self._never_accepted
        return waiting if waiting > FEW else 0

    def _note_end(self, _: object) -> None:
        self._ended += 1


def _server_ids() -> set[int]:
    servers = [] if _CHANNELZ is None else json.loads(_CHANNELZ.channelz_get_servers(0)).get("server", [])
    return {int(server["ref"]["serverId"]) for server in servers}


def _connections(server_id: int) -> Iterator[dict[str, Any]]:
    """Yields what is counted of each of a server's connections."""
    first, ended = 0, False
    while not ended:
        page = json.loads(_CHANNELZ.channelz_get_server_sockets(server_id, first, 0))
        for socket in page.get("socketRef", ()):
            first = int(socket["socketId"]) + 1
            try:
                answer = json.loads(_CHANNELZ.channelz_get_socket(first - 1))
            except ValueError:  # it has just been closed
                continue
            yield answer["socket"]["data"]
        ended = page.get("end", False)


def _open(data: dict[str, Any], of_what: str) -> int:
    """Returns how many of them have begun and not ended."""
    begun, *ended = (int(data.get(f"{of_what}{count}", 0)) for count in ("Started", "Succeeded", "Failed"))
    return begun - sum(ended)
