"""The image of the service, run as it is deployed: no rights, nothing to write to, an engine that is its neighbour."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentic_isolation import __version__
from tests.engine import Engine
from tests.engine.plugin import RUN_LABEL
from tests.image.running import Container
from tests.support import engine_leaks

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]
SOCKET = "/run/engine/docker.sock"
STATE = "/var/lib/agentic-isolation"
PROGRAM = "agentic-isolation"
ALIVE = "echo started; while sleep 0.1; do date +%s >> alive; done"


@contextlib.contextmanager
def volume(engine: Engine) -> Iterator[str]:
    """A volume for the state, as a deployment has one."""
    name, _, value = RUN_LABEL.partition("=")
    made = engine.api.json("POST", "/volumes/create", content={"Labels": {name: value}})["Name"]
    try:
        yield made
    finally:
        engine.api.request("DELETE", f"/volumes/{made}")


def settings(engine: Engine, image: str, state: str) -> dict[str, Any]:
    """Settings of the service's container: those of deploy/compose.yaml that the engine sees."""
    scheme, _, socket = engine.docker_host.partition("://")
    if scheme != "unix":
        pytest.skip(f"the engine is at {engine.docker_host}: its socket is not this machine's")
    return {
        "Image": image,
        "Env": [
            f"DOCKER_HOST=unix://{SOCKET}",
            f"AGENTIC_ISOLATION_DOCKER_IMAGE={engine.images.python}",
            f"AGENTIC_ISOLATION_DOCKER_LABELS={RUN_LABEL}",
        ],
        "Healthcheck": {"Interval": 500_000_000},  # the command is the image's
        "HostConfig": {
            "Binds": [f"{socket}:{SOCKET}", f"{state}:{STATE}"],
            "CapDrop": ["ALL"],
            "GroupAdd": [str(Path(socket).stat().st_gid)],
            "NetworkMode": "none",
            "PidsLimit": 256,
            "ReadonlyRootfs": True,
            "SecurityOpt": ["no-new-privileges"],
            "Tmpfs": {"/tmp": "mode=1777,noexec,nosuid,nodev"},
        },
    }


def eventually(condition: Callable[[], bool], what: str, within: float = 30) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        time.sleep(0.1)


@contextlib.contextmanager
def service(engine: Engine, image: str, state: str) -> Iterator[Container]:
    """The service in a container, healthy."""
    with Container.started(engine, settings(engine, image, state)) as container:
        try:
            eventually(lambda: container.health() == "healthy", "it is healthy")
        except AssertionError as error:
            error.add_note(container.log())
            raise
        yield container


def ended(container: Container) -> str:
    """Tells a service to end, which it must do in good order; returns what it has logged."""
    container.signal("TERM")
    assert container.wait() == 0
    return container.log()


def answer(told: tuple[str, int]) -> str:
    """Returns what a command has printed, which must not have failed."""
    assert told[1] == 0, told[0]
    return told[0]


def test_service_without_any_rights(engine: Engine, image: str) -> None:
    with volume(engine) as state, service(engine, image, state) as container:
        assert answer(container.execute(PROGRAM, "health")) == "SERVING\n"
        # In the container: a user without a name, without capabilities, that can write to its state and /tmp only.
        assert answer(container.execute("id", "-u")) == "10001\n"
        status = answer(container.execute("cat", "/proc/1/status"))
        assert "CapEff:\t0000000000000000" in status
        assert "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert container.execute("touch", "/app/x")[1] != 0
        answer(container.execute("touch", f"{STATE}/x"))

        # In the workspace: another container, beside this one, without the engine's socket.
        line = f"id -u; test -e {SOCKET} || echo none; test -e {STATE} || echo none"
        assert answer(container.execute(PROGRAM, "run", "--target", "127.0.0.1:50051", "--", "sh", "-c", line)) == (
            "1000\nnone\nnone\n"
        )
        refused, code = container.execute(
            PROGRAM, "run", "--target", "127.0.0.1:50051", "--provider", "local", "--", "true"
        )
        assert (code, "there is no provider 'local'; use 'docker'" in refused) == (125, True)
        events = [json.loads(line)["event"] for line in ended(container).splitlines() if line.startswith("{")]
        assert "workspace created" in events


def test_upgrade_takes_workspaces_and_processes_over(engine: Engine, image: str) -> None:
    """One container is replaced by another one with the same volume, and nothing of a workspace is lost."""
    target = ("--target", "127.0.0.1:50051")
    with volume(engine) as state:
        with service(engine, image, state) as before:
            script = (
                "import asyncio, agentic_isolation as a\n"
                "async def main():\n"
                f"    ws = await a.AgenticWorkspace.create(target='127.0.0.1:50051', lease=120)\n"
                f"    process = await ws.start({ALIVE!r}, detached=True)\n"
                "    await anext(process.lines())\n"
                "    await process.detach()\n"
                "    print(ws.id)\n"
                "    import os; os._exit(0)\n"
                "asyncio.run(main())\n"
            )
            workspace = answer(before.execute("/app/bin/python", "-u", "-c", script)).strip()
            ended(before)
        assert engine_leaks.container_of(engine, workspace), "it lives on without a service"
        with service(engine, image, state) as after:
            lines = ("exec", *target, workspace, "--", "sh", "-c", "wc -l < alive")
            first = int(answer(after.execute(PROGRAM, *lines)))
            eventually(lambda: int(answer(after.execute(PROGRAM, *lines))) > first, "the process goes on")
            answer(after.execute(PROGRAM, "rm", *target, workspace))
            ended(after)


def test_image_says_what_it_is(engine: Engine, image: str) -> None:
    told = engine.api.json("GET", f"/images/{image}/json")
    config = told["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["Volumes"]) == [STATE]
    assert config["Healthcheck"]["Test"] == ["CMD", "/app/bin/agentic-isolation", "health"]
    base = engine.api.json("GET", f"/images/{engine.images.python}/json")
    assert told["Size"] - base["Size"] < 150e6, "it holds more than the dependencies"
    script = {"Image": image, "Entrypoint": ["sh", "-c"], "User": "0"}
    unwanted = ("-path /source", "-path '/app/lib/*/pip'", "-name '*.whl'", "-name '*.go'")
    line = f"find / -xdev \\( {' -o '.join(unwanted)} \\) | grep . || echo none"
    with Container.started(engine, script | {"Cmd": [line]}) as container:
        assert container.wait() == 0
        assert container.log() == "none\n"
    with Container.started(engine, {"Image": image, "Cmd": ["--version"]}) as container:
        assert container.wait() == 0
        assert container.log() == f"agentic-isolation, version {__version__}\n"
