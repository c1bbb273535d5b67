"""The machine, the engine and the versions that figures were taken with: without them they say nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from agentic_isolation import ProviderUnavailableError, __version__
from agentic_isolation_service.config import DockerConfig
from agentic_isolation_service.providers.docker.engine import Engine
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
    engine = Engine(here.host)
    try:
        async with engine.client() as client:
            info = await client.system.info()
    finally:
        await engine.aclose()
    return {
        "version": info.get("ServerVersion"),
        "storage": info.get("Driver"),
        "control_groups": f"{info.get('CgroupDriver')}, version {info.get('CgroupVersion')}",
        "runc": (info.get("RuncCommit") or {}).get("ID", ""),
        "runsc": _first_line("runsc", "--version") if "runsc" in here.runtimes else "",
        "image": here.image,
    }


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
