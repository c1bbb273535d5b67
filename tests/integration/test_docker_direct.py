"""The direct way to guests: a socket of theirs, and whom it must never lead to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentic_isolation import AgenticWorkspace, SecurityConfig
from agentic_isolation_service.core.ports import Place, Provider
from agentic_isolation_service.guest.link import GuestLink, LinkLostError
from agentic_isolation_service.providers.docker.container import GUEST_SOCKET
from agentic_isolation_service.providers.docker.namespace import ContainerInit, StrangerError, connect_to_guest
from tests.engine import Engine
from tests.support.engine_leaks import container_of
from tests.support.places import KEY, new_id, provider_of, spec_of
from tests.support.service import ServedProcess

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="run the tests as root: only root may enter namespaces"),
]
RUNC = SecurityConfig(use_gvisor=False)
SOON = 3.0

LISTENER = f"""
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0{GUEST_SOCKET[1:]}")
listener.listen()
print("listening", flush=True)
connection, _ = listener.accept()
connection.sendall(sys.argv[1].encode())
time.sleep(60)
"""


def init_of(engine: Engine, workspace_id: str) -> ContainerInit:
    record = engine.api.json("GET", f"/containers/{container_of(engine, workspace_id)}/json")
    return ContainerInit(record["Id"], record["State"]["Pid"])


def pid_of_nobody() -> int:
    with subprocess.Popen(["true"]) as ended:
        pass
    return ended.pid


def has_bridge(engine: Engine, workspace_id: str) -> bool:
    return bool(engine.api.json("GET", f"/containers/{container_of(engine, workspace_id)}/json")["ExecIDs"])


@pytest.fixture
async def providing(directory: Path) -> AsyncIterator[Provider]:
    provider = provider_of("runc", new_id(), directory)
    yield provider
    await provider.aclose()


@pytest.fixture
async def place(providing: Provider) -> AsyncIterator[Place]:
    place = await providing.create(spec_of("runc", new_id()))
    yield place
    await providing.destroy(place)


@contextlib.contextmanager
def listening_elsewhere(says: str, *, as_init: bool = True) -> Iterator[int]:
    """Something that listens on the guest's name in a network namespace of its own; yields the pid to be entered."""
    command = ["unshare", "--net", sys.executable, "-c", LISTENER, says]
    if not as_init:
        command = ["unshare", "--net", "sh", "-c", '"$@" & wait', "sh", *command[2:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"listening\n"
            yield process.pid
        finally:
            os.killpg(process.pid, 9)


async def test_runc_needs_no_bridge_and_gvisor_has_one(
    engine: Engine, service: ServedProcess, security: SecurityConfig
) -> None:
    async with AgenticWorkspace.create(security=security, lease=60, target=service.target) as ws:
        assert (await ws.execute("true")).success
        assert has_bridge(engine, ws.id) is bool(security.use_gvisor)
        # Whoever looks from inside finds the guest's socket, and no other that listens.
        sockets = (await ws.execute("cat /proc/net/unix")).stdout.splitlines()[1:]
        listening = [line.split()[-1] for line in sockets if line.split()[3] == "00010000"]
        assert listening == [GUEST_SOCKET] or security.use_gvisor


class End:
    """Waits for a stream's end."""

    def __init__(self) -> None:
        self.came = asyncio.Event()

    def received(self, data: bytes) -> None:
        pass

    def ended(self, error: OSError | None) -> None:
        self.came.set()


async def test_service_that_may_not_enter_namespaces_has_bridges(engine: Engine, directory: Path) -> None:
    with ServedProcess("--address", f"unix:{directory}/s", enters=False) as service:
        async with AgenticWorkspace.create(security=RUNC, lease=60, target=service.target) as ws:
            assert (await ws.execute("echo here")).stdout == "here\n"
            assert has_bridge(engine, ws.id)


async def test_bridge_while_there_can_be_no_thread(
    engine: Engine, providing: Provider, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes that the service may have are all there."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        stream = await providing.connect(place)
    await stream.aclose()
    assert has_bridge(engine, place.workspace_id)


async def test_only_the_guest_of_that_very_container_is_reached(
    engine: Engine, providing: Provider, place: Place
) -> None:
    """A pid that has become another process's, or is one of another host, is found out, and so is a wrong key."""
    init = init_of(engine, place.workspace_id)
    link = await GuestLink.open(await connect_to_guest(init), KEY)
    assert link.workspace_id == place.workspace_id
    await link.aclose()
    for wrong in (ContainerInit(init.container_id, os.getpid()), ContainerInit("0" * 64, init.pid)):
        with pytest.raises(StrangerError, match="not in the container"):
            await connect_to_guest(wrong)
    with pytest.raises(LinkLostError):
        await GuestLink.open(await connect_to_guest(init), bytes(32))
    with pytest.raises(ProcessLookupError):
        await connect_to_guest(ContainerInit(init.container_id, pid_of_nobody()))
    again = await providing.connect(place)
    await providing.destroy(place)
    end = End()
    again.start(end)
    await end.came.wait()  # a stream ends with its container
    await again.aclose()
    with pytest.raises(OSError, match="container"):
        await providing.connect(place)


async def test_listeners_in_the_place_of_a_guest(engine: Engine) -> None:
    """Whatever process is taken for a guest, there is an error in time, never a link and never an endless wait."""
    group = ""  # as if any process were in the container
    with (
        listening_elsewhere("nobody is here", as_init=False) as pid,
        pytest.raises(ConnectionError, match="in the place"),
    ):
        await connect_to_guest(ContainerInit(group, pid))
    began = time.monotonic()
    with listening_elsewhere("") as pid, pytest.raises(TimeoutError, match="has said nothing for"):
        await connect_to_guest(ContainerInit(group, pid))
    assert time.monotonic() - began < SOON
    with listening_elsewhere("nobody is here") as pid:
        stream = await connect_to_guest(ContainerInit(group, pid))
        with pytest.raises(LinkLostError):
            await GuestLink.open(stream, KEY)


async def test_connecting_that_is_cancelled_at_any_moment(engine: Engine, place: Place) -> None:
    """No socket and no descriptor is left, which the accounts of every test tell."""
    init = init_of(engine, place.workspace_id)
    done = 0
    for step in range(60):
        connecting = asyncio.create_task(connect_to_guest(init))
        await asyncio.sleep(step * 0.0001)
        connecting.cancel()
        await asyncio.wait([connecting])
        if not connecting.cancelled():
            done += 1
            await connecting.result().aclose()
    assert 0 < done < 60
