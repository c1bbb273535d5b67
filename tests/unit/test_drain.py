"""A server that ends: calls are told so between two messages, never in the midst of one."""

from __future__ import annotations

import asyncio

import pytest

from agentic_isolation_service.rpc.drain import Drain, DrainingError


async def test_message_that_is_on_its_way_leaves_first() -> None:
    """gRPC cannot say how a call ends while it sends the first message: the call would hang, and the log complain."""
    drain, sent, left = Drain(), asyncio.Event(), asyncio.Event()

    async def send() -> None:
        await sent.wait()
        left.set()

    async def stream() -> None:
        with drain.call(resumable=True) as running:
            await running.write(send())
            raise AssertionError("it goes on")

    streaming = asyncio.create_task(stream())
    await asyncio.sleep(0)
    draining = asyncio.create_task(drain.run(grace=600))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not streaming.done()
    sent.set()
    with pytest.raises(DrainingError) as raised:
        await streaming
    assert raised.value.begun
    assert left.is_set()
    await draining


async def test_call_that_sends_nothing_ends_at_once() -> None:
    drain = Drain()

    async def wait() -> None:
        with drain.call(resumable=True):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    await drain.run(grace=600)
    with pytest.raises(DrainingError) as raised:
        await waiting
    assert raised.value.begun
    with pytest.raises(DrainingError) as raised:
        await wait()
    assert not raised.value.begun
