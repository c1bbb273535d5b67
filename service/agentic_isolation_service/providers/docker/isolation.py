"""What a container really has: the engine's record of it, and what the guest measured inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agentic_isolation.models import Isolation, NetworkMode


def read_back(measured: Isolation, container: Mapping[str, object], working_dir: str) -> Isolation:
    """Returns the isolation of a container.

    Args:
        measured: What the guest found inside. It outranks the engine's record, which fills in what gVisor hides.
        container: The engine's `GET /containers/{id}/json` (Docker Engine API 1.41).
        working_dir: Where the volume with the disk limit is mounted.
    """
    host = _object(container, "HostConfig")
    nano_cpus = _number(host, "NanoCpus")
    return replace(
        measured,
        network=NetworkMode.NONE if host.get("NetworkMode") == "none" else NetworkMode.OUTBOUND,
        cpu_millis=measured.cpu_millis or (None if nano_cpus is None else nano_cpus // 1_000_000),
        memory_bytes=measured.memory_bytes or _number(host, "Memory"),
        disk_bytes=measured.disk_bytes or _disk_limit(host, working_dir),
        open_files=measured.open_files or _ulimit(host, "nofile"),
        pids_limit=measured.pids_limit or _ulimit(host, "nproc") or _number(host, "PidsLimit"),
    )


def _object(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}


def _number(value: Mapping[str, object], name: str) -> int | None:
    """Returns a limit; the engine's 0 and -1 mean that there is none."""
    found = value.get(name)
    return found if isinstance(found, int) and found > 0 else None


def _ulimit(host: Mapping[str, object], name: str) -> int | None:
    limits = host.get("Ulimits")
    for limit in limits if isinstance(limits, list) else []:
        if isinstance(limit, Mapping) and limit.get("Name") == name:
            return _number(limit, "Hard")
    return None


def _disk_limit(host: Mapping[str, object], working_dir: str) -> int | None:
    mounts = host.get("Mounts")
    for mount in mounts if isinstance(mounts, list) else []:
        if isinstance(mount, Mapping) and mount.get("Target") == working_dir:
            driver = _object(_object(mount, "VolumeOptions"), "DriverConfig")
            for option in str(_object(driver, "Options").get("o", "")).split(","):
                name, _, value = option.partition("=")
                if name == "size" and value.isdecimal():
                    return int(value)
    return None
