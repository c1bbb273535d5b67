"""Workspaces that end while an engine with live restore starts: it holds their volumes for containers that are gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from agentic_isolation_service.providers.docker.creation import Sweeper
from agentic_isolation_service.providers.docker.engine import Engine as Connection
from tests.chaos.engine import own_engine
from tests.engine import Engine, EngineError
from tests.support import proc
from tests.support.engine_leaks import containers, held_for_nobody, volumes
from tests.support.eventually import eventually
from tests.support.own_engine import bring_up
from tests.turns import WAITS

pytestmark = [pytest.mark.docker, WAITS]
LABELS = {"agentic-isolation": "workspace", "agentic-isolation.test": "live-restore"}
LABEL = "agentic-isolation.test=live-restore"
COUNT = 12
PAUSE = 0.1
"""Seconds between the ends of two containers, so that some end while the engine starts."""
TRIES = 5


@pytest.fixture(scope="module")
def lasting() -> Iterator[Engine]:
    """An engine with live restore that nobody else uses."""
    with contextlib.ExitStack() as stack:
        try:
            with proc.no_subreaper():
                engine = stack.enter_context(own_engine())
        except EngineError as error:
            pytest.skip(str(error))
        yield engine


@pytest.fixture
def ground(warm: None, lasting: Engine) -> None:
    """The engine runs when accounts are taken."""
    bring_up(lasting)


def running(engine: Engine) -> int:
    """Starts a container as a workspace's is, with a file in its volume, and returns the pid of its first process."""
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    volume = {
        "Type": "volume",
        "Target": "/workspace",
        "VolumeOptions": {"NoCopy": True, "Labels": LABELS, "DriverConfig": {"Name": "local", "Options": options}},
    }
    config = {
        "Image": engine.images.python,
        "Entrypoint": ["sh", "-c", "echo secret >/workspace/file; exec sleep 1000"],
        "Labels": LABELS,
        "HostConfig": {"AutoRemove": True, "Mounts": [volume], "NetworkMode": "none"},
    }
    container = engine.api.json("POST", "/containers/create", content=config)["Id"]
    engine.api.request("POST", f"/containers/{container}/start")
    return int(engine.api.json("GET", f"/containers/{container}/json")["State"]["Pid"])


async def end(pids: list[int]) -> None:
    """Kills one after the other."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(PAUSE)


def has_file(engine: Engine, volume: str) -> bool:
    mount = {"Type": "volume", "Source": volume, "Target": "/volume"}
    config = {"Image": engine.images.tiny, "Cmd": ["true"], "HostConfig": {"Mounts": [mount], "NetworkMode": "none"}}
    container = engine.api.json("POST", "/containers/create", content=config)["Id"]
    try:
        engine.api.request("HEAD", f"/containers/{container}/archive", query={"path": "/volume/file"})
    except EngineError:
        return False
    finally:
        engine.api.request("DELETE", f"/containers/{container}")
    return True


async def test_volume_that_a_starting_engine_holds_for_nobody(ground: None, lasting: Engine) -> None:
    """Its content goes at the second look, and it itself when the engine has started anew."""
    connection = Connection(lasting.docker_host)
    try:
        async with connection.client() as client:
            for _ in range(TRIES):
                pids = [running(lasting) for _ in range(COUNT)]
                lasting.kill()
                await asyncio.gather(asyncio.to_thread(bring_up, lasting), end(pids))
                await eventually(lambda: not containers(lasting, LABEL), "all have been removed")
                sweeper = Sweeper(LABELS, stale_after=-1, interval=0)
                await sweeper.sweep(client)
                if held := held_for_nobody(lasting, LABEL):
                    break
            else:
                pytest.skip("this engine holds nothing for nobody")
            assert set(volumes(lasting, LABEL)) == set(held)
            await sweeper.sweep(client)
            assert not any(has_file(lasting, name) for name in held)
            assert not containers(lasting, LABEL)
    finally:
        await connection.aclose()
    lasting.stop()
    bring_up(lasting)
    connection = Connection(lasting.docker_host)
    try:
        async with connection.client() as client:
            await Sweeper(LABELS, stale_after=-1).sweep(client)
    finally:
        await connection.aclose()
    assert not volumes(lasting, LABEL)
