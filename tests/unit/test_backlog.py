"""Calls that wait to be accepted are seen, though the event loop is not late for them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import grpc.aio

from agentic_isolation_service.rpc.backlog import FEW, Backlog
from tests.support.eventually import eventually

CALLS = 4 * FEW
WORK = 0.005
"""Seconds that each call keeps the event loop busy."""


async def serve(method: Any, **options: int) -> tuple[Backlog, grpc.aio.Server, str]:
    backlog = Backlog()
    options_of_grpc = [(f"grpc.server.{name}", value) for name, value in options.items()]
    server = backlog.made(lambda: grpc.aio.server(interceptors=[backlog], options=options_of_grpc))
    handlers: dict[str, Any] = {"Work": grpc.unary_unary_rpc_method_handler(method)}
    server.add_registered_method_handlers("test.Service", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return backlog, server, f"127.0.0.1:{port}"


async def test_what_waits_is_counted_and_nothing_when_all_have_ended() -> None:
    seen = []

    async def work(request: bytes, context: Any) -> bytes:
        seen.append(backlog.waiting())
        deadline = time.perf_counter() + WORK
        while time.perf_counter() < deadline:
            pass
        return b""

    backlog, server, target = await serve(work)
    async with grpc.aio.insecure_channel(target) as channel:
        call: Any = channel.unary_unary("/test.Service/Work")
        await asyncio.gather(*(call(b"") for _ in range(CALLS)))
        assert backlog.accepted == CALLS
        assert max(seen) > CALLS / 4, "most of them arrive before the first ones are done"
        await eventually(lambda: backlog.waiting() == 0, "nothing waits any more")
    await server.stop(0)
    assert backlog.waiting() == 0, "nor where there is no server any more"


async def test_calls_that_go_on_do_not_wait() -> None:
    gate = asyncio.Event()

    async def work(request: bytes, context: Any) -> bytes:
        await gate.wait()
        return b""

    backlog, server, target = await serve(work)
    async with grpc.aio.insecure_channel(target) as channel:
        call: Any = channel.unary_unary("/test.Service/Work")
        calls = [asyncio.ensure_future(call(b"")) for _ in range(CALLS)]
        await eventually(lambda: backlog.accepted == CALLS, "all are accepted")
        await eventually(lambda: backlog.waiting() == 0, "none waits")
        gate.set()
        await asyncio.gather(*calls)
    await server.stop(0)


async def test_what_grpc_refuses_and_whose_caller_has_gone_does_not_wait() -> None:
    async def work(request: bytes, context: Any) -> bytes:
        time.sleep(WORK)  # noqa: ASYNC251  others are to wait meanwhile
        return b""

    backlog, server, target = await serve(work, max_pending_requests=FEW, max_pending_requests_hard_limit=2 * FEW)
    async with grpc.aio.insecure_channel(target) as channel:
        call: Any = channel.unary_unary("/test.Service/Work")
        calls = [asyncio.ensure_future(call(b"", timeout=FEW * WORK)) for _ in range(CALLS)]
        await asyncio.gather(*calls, return_exceptions=True)
        refused = CALLS - backlog.accepted
        assert refused > FEW, "gRPC has refused what was more than may wait"
        await eventually(lambda: backlog.waiting() == 0, "they do not count as waiting")
        assert backlog.waiting() == 0
    await server.stop(0)
