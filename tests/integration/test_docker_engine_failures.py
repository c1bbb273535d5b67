"""What is reached under DOCKER_HOST is no engine, or one that fails: there is no workspace, and a clear word why."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentic_isolation import (
    Isolation,
    ProviderUnavailableError,
    SecurityConfig,
    WorkspaceConfig,
    WorkspaceDockerProvider,
)
from agentic_isolation_service.core.ports import Place
from agentic_isolation_service.doctor.checks import check_engine
from agentic_isolation_service.doctor.findings import Status
from agentic_isolation_service.doctor.profiles import GVisor
from agentic_isolation_service.providers.docker import DockerProvider
from tests.engine import Engine
from tests.support.program import python_environment

pytestmark = pytest.mark.docker

PASSWORD = "hunter2"
CONFIG = WorkspaceConfig(security=SecurityConfig(use_gvisor=False), lease=60)
PLACE = Place("ws-one", "runc")


@contextlib.asynccontextmanager
async def answering(path: Path, answer: bytes) -> AsyncIterator[str]:
    """A server on a unix socket that gives one answer to all requests: no engine can be made to fail like that."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, path) as server:
        yield f"unix://{path}"
        server.close()


def http(status: str, content: object) -> bytes:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


FAILURES = pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http("500 Internal Server Error", {"message": "the disk is on fire"}), "500.*the disk is on fire"),
        (http("503 Service Unavailable", {"message": "come back later"}), "503.*come back later"),
        (http("403 Forbidden", {"message": "not for you"}), "403.*not for you"),
        (http("404 Not Found", {"message": "page not found"}), "404.*page not found"),
        (http("200 OK", {"hello": "world"}), "no Docker Engine"),
        (http("200 OK", ["hello"]), "no Docker Engine"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/html\r\n\r\n<html", "no Docker Engine"),
        (b"SSH-2.0-something\r\n", "cannot be reached"),
        (b"", "cannot be reached"),
    ],
    ids=["500", "503", "403", "404", "json", "list", "html", "ssh", "nothing"],
)


@FAILURES
async def test_engine_that_fails(directory: Path, answer: bytes, words: str) -> None:
    async with answering(directory / "fake.sock", answer) as host:
        with pytest.raises(ProviderUnavailableError, match=f"{host}.*{words}"):
            await WorkspaceDockerProvider(host=host).create(CONFIG)


@FAILURES
async def test_engine_that_fails_lists_no_places(engine: Engine, directory: Path, answer: bytes, words: str) -> None:
    """Which is something else than that there are none."""
    async with answering(directory / "fake.sock", answer) as host:
        provider = DockerProvider(host, service_id="test", default_image=engine.images.python)
        with pytest.raises(ProviderUnavailableError, match=f"{host}.*{words}"):
            await provider.list()
        await provider.aclose()


@FAILURES
async def test_engine_that_fails_is_diagnosed(directory: Path, answer: bytes, words: str) -> None:
    async with answering(directory / "fake.sock", answer) as host:
        await _diagnosed(host, words)


@pytest.mark.parametrize("host", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:port", "/var/run/docker.sock"])
async def test_host_that_is_none_is_diagnosed(host: str) -> None:
    await _diagnosed(host, "No such file|DOCKER_HOST")


async def test_socket_of_others_is_diagnosed(directory: Path) -> None:
    """It runs, so to start it would help nothing."""
    capable = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    async with answering(directory / "fake.sock", b"") as host:
        (directory / "fake.sock").chmod(0)
        done = await asyncio.to_thread(
            subprocess.run,
            [*capable, sys.executable, "-m", "agentic_isolation_service", "doctor"],
            env=python_environment(DOCKER_HOST=host),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "cannot be reached (Permission denied); let this program's user into the group" in done.stdout


async def test_data_of_others_is_diagnosed(directory: Path) -> None:
    """As an engine with userns-remap keeps it: who may use its socket may not look at its disk."""
    root = directory / "docker" / "231072.231072"
    root.mkdir(parents=True)
    root.parent.chmod(0)
    capable = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    program = (
        "import asyncio; from agentic_isolation_service.doctor.checks import _disk; "
        f"print(asyncio.run(_disk('unix:///socket', {{'Driver': 'overlay2', 'DockerRootDir': {str(root)!r}}})).detail)"
    )
    try:
        done = await asyncio.to_thread(
            subprocess.run,
            [*capable, sys.executable, "-c", program],
            env=python_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        root.parent.chmod(0o700)
    assert done.stdout == f"overlay2 in {root}, which cannot be looked at from here\n", done.stderr


async def test_profile_without_a_workspace_is_not_told_as_held(engine: Engine) -> None:
    words = ["--profile", "development", "--image", "127.0.0.1:1/nothing"]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "agentic_isolation_service", "doctor", *words],
        env=python_environment(DOCKER_HOST=engine.docker_host),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "development workspace  failed" in done.stdout
    assert done.stdout.endswith("\n\ndevelopment: not attacked, as there is no workspace\n")


async def test_image_that_is_no_name_is_diagnosed(engine: Engine) -> None:
    """It is not the engine's fault, of which everything else is told."""
    *others, image = await check_engine(engine.docker_host, "No Image!", GVisor.AUTO)
    assert "engine" in [check.name for check in others if check.status is Status.OK]
    assert (image.name, image.status) == ("image", Status.FAILED)
    assert image.detail.startswith("'No Image!' is no name of an image: ")


async def _diagnosed(host: str, words: str) -> None:
    [check] = await check_engine(host, "python", GVisor.AUTO)
    assert (check.name, check.status) == ("engine", Status.FAILED)
    assert re.search(f"{host}.*({words})", check.detail)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("unix:///nowhere/docker.sock", "No such file"),
        ("unix:///dev/null", "refused|reached"),
        ("tcp://127.0.0.1:1", "refused|Connect call failed"),
        ("tcp://127.0.0.1:port", "DOCKER_HOST"),
        ("tcp://nowhere.invalid:2375", "cannot be reached"),
        ("/var/run/docker.sock", "DOCKER_HOST"),
        ("ssh://user@nowhere.invalid", r"asyncssh is required.*aiodocker\[ssh\]"),
        ("ssh://", "DOCKER_HOST"),
        ("gopher://127.0.0.1:70", "DOCKER_HOST"),
        ("npipe:////./pipe/docker_engine", "Windows"),
    ],
)
async def test_host_that_is_none(host: str, words: str) -> None:
    with pytest.raises(ProviderUnavailableError, match=f"{host}.*({words})"):
        await WorkspaceDockerProvider(host=host).create(CONFIG)


async def test_password_of_the_engine_is_told_to_nobody() -> None:
    """Errors go to clients, who may use the engine and not enter its host."""
    with pytest.raises(ProviderUnavailableError, match=r"ssh://user:\*\*\*@nowhere.invalid") as told:
        await WorkspaceDockerProvider(host=f"ssh://user:{PASSWORD}@nowhere.invalid").create(CONFIG)
    assert PASSWORD not in "".join(traceback.format_exception(told.value))


async def test_engine_that_fails_is_told_by_the_provider_itself(engine: Engine, directory: Path) -> None:
    """Being unavailable is what `info` says then, and nothing that it raises."""
    async with answering(directory / "fake.sock", http("500 Oops", {"message": "the disk is on fire"})) as host:
        provider = DockerProvider(host, service_id="test", default_image=engine.images.python)
        described = await provider.describe()
        await provider.aclose()
    assert not described.available
    assert "the disk is on fire" in described.unavailable_reason


async def test_engine_whose_answers_are_no_json(engine: Engine, directory: Path) -> None:
    """Not even later, when it has told what it is: that is no defect of the service."""
    answer = http("200 OK", {"hello": "world"}).replace(b"}", b" ")
    async with answering(directory / "fake.sock", answer) as host:
        provider = DockerProvider(host, service_id="test", default_image=engine.images.python)
        for asking in (provider.image_id(CONFIG), provider.connect(PLACE), provider.destroy(PLACE), provider.list()):
            with pytest.raises(ProviderUnavailableError, match=f"{host}.*no JSON"):
                await asking
        await provider.aclose()


async def test_engine_that_tells_nothing_of_a_container(engine: Engine, directory: Path) -> None:
    """As a proxy that allows some requests and not others."""
    answer = http("403 Forbidden", {"message": "not for you"})
    async with answering(directory / "fake.sock", answer) as host:
        provider = DockerProvider(host, service_id="test", default_image=engine.images.python)
        with pytest.raises(ProviderUnavailableError, match=f"{host}.*not for you"):
            await provider.isolation(PLACE, CONFIG, Isolation(runtime="runc"), in_gvisor=False)
        with pytest.raises(ProviderUnavailableError, match=f"{host}.*not for you"):
            await provider.destroy(PLACE)
        await provider.aclose()
