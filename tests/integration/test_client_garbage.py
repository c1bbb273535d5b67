"""What is over holds nothing: whatever a call has ended with, its connection ends with the client and no later."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agentic_isolation import AgenticWorkspace, IsolationError, ServiceClient
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.serving import serve
from tests.support.service import ServedProcess

Use = Callable[[AgenticWorkspace], Awaitable[object]]


async def _reads_to_the_end(workspace: AgenticWorkspace) -> None:
    await workspace.execute("echo hi")
    await workspace.write_file("a", b"content")
    await workspace.read_file("a")
    async with await workspace.start(["cat"]) as process:
        await process.write("hi\n")
        await process.send_eof()
        await process.wait()


async def _leaves_early(workspace: AgenticWorkspace) -> None:
    await workspace.execute("sleep 9", timeout=0.2)
    async with contextlib.aclosing(workspace.stream("echo a; sleep 9")) as lines:
        await anext(lines)
    async with await workspace.start(["sleep", "9"]):
        pass


async def _is_cancelled(workspace: AgenticWorkspace) -> None:
    async with asyncio.timeout(0.3):
        await workspace.execute("sleep 9")


async def _streams_nothing(workspace: AgenticWorkspace) -> None:
    async for _ in workspace.stream(["no-such-program"]):
        pass


USES: dict[str, Use] = {
    "reads to the end": _reads_to_the_end,
    "leaves early": _leaves_early,
    "is cancelled": _is_cancelled,
    "executes nothing": lambda workspace: workspace.execute(["no-such-program"]),
    "streams nothing": _streams_nothing,
    "starts nothing": lambda workspace: workspace.start(["no-such-program"]),
    "reads nothing": lambda workspace: workspace.read_file("none"),
    "writes nowhere": lambda workspace: workspace.write_file("/proc/none", b""),
    "attaches to nothing": lambda workspace: workspace.attach("p-none"),
}


@contextlib.contextmanager
def garbage() -> Iterator[list[object]]:
    """Yields what nobody refers to within and what is not gone for all that; complete afterwards."""
    gc.collect()
    gc.disable()
    flags = gc.get_debug()
    gc.set_debug(gc.DEBUG_SAVEALL)
    found: list[object] = []
    try:
        yield found
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(flags)
        gc.enable()
        gc.garbage.clear()


def calls_in(found: list[object]) -> list[object]:
    """Returns the calls and channels among objects, by which connections are held."""
    return [thing for thing in found if type(thing).__name__ in ("_AioCall", "AioChannel")]


@pytest.mark.parametrize("use", USES)
async def test_calls_that_are_over_hold_nothing(service: ServedProcess, use: str) -> None:
    with garbage() as found:
        async with AgenticWorkspace.create("local", target=service.target) as workspace:
            with contextlib.suppress(IsolationError, TimeoutError):
                await USES[use](workspace)
    assert not calls_in(found), found


@pytest.mark.parametrize("retry_timeout", [0, 0.3])
async def test_calls_that_reach_nobody_hold_nothing(retry_timeout: float) -> None:
    with garbage() as found:
        async with ServiceClient("127.0.0.1:1", retry_timeout=retry_timeout) as client:
            with pytest.raises(IsolationError):
                await client.info()
    assert not calls_in(found), found


REFUSED = {name: USES[name] for name in ("executes nothing", "streams nothing", "reads nothing", "writes nowhere")}


@pytest.mark.parametrize("road", ["embedded", "served"])
@pytest.mark.parametrize("use", REFUSED)
async def test_service_keeps_nothing_of_what_it_refuses(use: str, road: str, directory: Path) -> None:
    """There can be thousands of them in a second."""
    async with contextlib.AsyncExitStack() as stack:
        target = ""
        if road == "served":  # in this process, whose garbage is looked at
            target = await stack.enter_async_context(serve(ServiceConfig(address=f"unix:{directory}/grpc.sock")))
        workspace = await stack.enter_async_context(AgenticWorkspace.create("local", target=target))
        with garbage() as found:
            for _ in range(5):  # gRPC's server has the last one in hand until the next comes
                with pytest.raises(IsolationError):
                    await REFUSED[use](workspace)
            await asyncio.sleep(0.2)
    assert not [thing for thing in found if type(thing).__name__ in ("frame", "RPCState")]
