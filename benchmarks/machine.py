"""The machine, the engine and the versions that figures were taken with: without them they say nothing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Mapping
from pathlib import Path

import aiodocker

from agentic_isolation import ProviderUnavailableError, __version__
from agentic_isolation_service.config import DockerConfig
from agentic_isolation_service.providers.docker.engine import Engine
from benchmarks.containers import LABEL
from benchmarks.roster import EngineHere
from benchmarks.worker_process import CHECKOUT

_PACKAGES = ("grpcio", "protobuf", "aiodocker", "aiohttp", "uvloop")


async def find_engine() -> EngineHere | None:
    """Returns the engine of DOCKER_HOST or the standard socket; None where none answers."""
    settings = DockerConfig.from_environment()
    engine = Engine(settings.host)
    try:
        facts = await engine.facts()
    except ProviderUnavailableError:
        return None
    finally:
        await engine.aclose()
    return EngineHere(engine.host, settings.image, facts.cpus, facts.runtimes)


async def engine_description(here: EngineHere | None) -> dict[str, object]:
    """Describes the engine."""
    if here is None:
        return {}
    async with _client(here) as client:
        info = await client.system.info()
    return {
        "version": info.get("ServerVersion"),
        "storage": info.get("Driver"),
        "control_groups": f"{info.get('CgroupDriver')}, version {info.get('CgroupVersion')}",
        "runc": (info.get("RuncCommit") or {}).get("ID", ""),
        "runsc": _first_line("runsc", "--version") if "runsc" in here.runtimes else "",
        "image": here.image,
    }


async def sweep(here: EngineHere, run: str) -> None:
    """Removes what a run's contenders have left in the engine: those that were killed, or forgot something."""
    mine = {"label": [f"{LABEL}={run}"]}
    async with _client(here) as client:
        for container in await client.containers.list(all=True, filters=json.dumps(mine)):
            await _gone(container.delete(force=True, v=True))
        for image in await client.images.list(filters=mine):
            await _gone(client.images.delete(image["Id"], force=True))


async def _gone(removal: Awaitable[object]) -> None:
    try:
        await removal
    except aiodocker.DockerError as error:
        if error.status not in (404, 409):  # or somebody else is removing it
            raise


@contextlib.asynccontextmanager
async def _client(here: EngineHere) -> AsyncIterator[aiodocker.Docker]:
    engine = Engine(here.host)
    try:
        async with engine.client() as client:
            yield client
    finally:
        await engine.aclose()


def machine_description() -> dict[str, object]:
    """Describes this machine and what runs on it, its load at this moment included."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "kernel": platform.release(),
        "system": _system(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "agentic-isolation": __version__,
        "commit": _first_line("git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"),
        **_versions(),
    }


def _versions() -> Mapping[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    try:
        match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.processor() or platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.platform()


def _first_line(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split("\n")[0]
    except (OSError, subprocess.SubprocessError):
        return ""
