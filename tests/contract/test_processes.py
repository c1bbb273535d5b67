"""Background processes: started and left, listed, waited for, signalled, read from any place later."""

from __future__ import annotations

import asyncio
import signal

from agentic_isolation import Exited, Output, TerminationCause
from tests.support.eventually import eventually
from tests.support.jobs import new_mark, python
from tests.support.ways import Workspace

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served")
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
PROBE = "import sys, urllib.request as u; print(u.urlopen('http://127.0.0.1:' + sys.argv[1]).read().decode())"


async def test_server_in_the_background_is_probed_by_another_command(ws: Workspace) -> None:
    server = await ws.start(python(SERVER), detached=True)
    port = await anext(aiter(server.lines()))
    await server.detach()
    assert (await ws.execute(python(PROBE, port))).stdout == "served\n"
    (listed,) = [process for process in await ws.processes() if process.id == server.id]
    assert listed.running
    assert (listed.detached, listed.terminal, listed.processes) == (True, False, 1)
    assert listed.args[1:] == python(SERVER)[1:]
    assert listed.memory_bytes > 1 << 20
    again = await ws.attach(server.id, read_only=True, observe=True)
    assert await anext(aiter(again.lines())) == port
    await again.detach()
    await ws.signal(server.id, signal.SIGTERM)
    assert (await ws.wait(server.id)).signal == signal.SIGTERM


async def test_listing_tells_what_has_become_of_each(ws: Workspace) -> None:
    busy = await ws.start(python("while True: pass"), detached=True)
    done = await ws.start("echo out; echo err >&2; exit 7", detached=True)
    assert (await ws.wait(done.id)).exit_code == 7
    before = {process.id: process for process in await ws.processes()}
    assert [*before].index(busy.id) < [*before].index(done.id)  # oldest first
    ended = before[done.id]
    assert not ended.running
    assert ended.termination is not None
    assert (ended.termination.exit_code, ended.output_bytes, ended.memory_bytes, ended.processes) == (7, 8, 0, 0)

    async def has_used_cpu() -> bool:
        (now,) = [process for process in await ws.processes() if process.id == busy.id]
        return now.cpu_seconds > before[busy.id].cpu_seconds

    await eventually(has_used_cpu, "the listing tells the CPU time of a process that runs", within=20)
    await busy.kill()
    assert (await busy.wait()).cause is TerminationCause.KILLED
    await done.detach()


async def test_output_is_read_later_from_any_place(ws: Workspace) -> None:
    mark = new_mark()
    writer = await ws.start(f"printf 0123456789; printf {mark}; exit 4", detached=True)
    await ws.wait(writer.id)
    await writer.detach()
    whole = b""
    for offset in (0, 5, 10 + len(mark)):
        async with await ws.attach(writer.id, offset=offset, read_only=True) as reader:
            events = [event async for event in reader]
        text = b"".join(event.data for event in events if isinstance(event, Output))
        whole = whole or text
        assert text == whole[offset:]
        assert isinstance(events[-1], Exited)
        assert reader.exit_code == 4
    # Which of two sources is read first is nobody's promise.
    assert whole in (f"0123456789{mark}".encode(), f"{mark}0123456789".encode())


async def test_waiting_keeps_nobody_and_ends_with_its_task(ws: Workspace) -> None:
    sleeper = await ws.start(["sleep", new_mark()], detached=True)
    waits = [asyncio.create_task(ws.wait(sleeper.id)) for _ in range(3)]
    await asyncio.sleep(0)
    waits[0].cancel()
    await ws.signal(sleeper.id, signal.SIGKILL, tree=True)
    first, *others = await asyncio.gather(*waits, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert [getattr(other, "signal", None) for other in others] == [signal.SIGKILL] * 2
    await sleeper.detach()
