"""What a container really has: the engine's record of it, and what the guest measured inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agentic_isolation.models import Isolation, Mount, NetworkMode, ResourceLimits, SecurityConfig, WorkspaceConfig
from agentic_isolation_service.providers.docker.container import (
    DEFAULT_OPEN_FILES,
    GVISOR_RUNTIME,
    disk_bytes_of,
    memory_bytes_of,
    user_of,
)

_PAGE = 64 << 10
"""Bytes; the largest page of the machines that there are."""


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


def shortfalls(found: Isolation, config: WorkspaceConfig, *, in_gvisor: bool) -> list[str]:
    """Returns in what a workspace has less than was asked for: an engine may take a setting and not hold it.

    Args:
        found: What it has.
        config: What was asked for.
        in_gvisor: Whether its kernel says that it is gVisor's.
    """
    security, limits = config.security or SecurityConfig.production(), config.limits or ResourceLimits()
    missing = []
    if in_gvisor is not (found.runtime == GVISOR_RUNTIME):
        missing.append(
            f"the runtime is {found.runtime}, but the kernel inside is {'' if in_gvisor else 'not '}gVisor's"
        )
    if security.cap_drop_all and found.capabilities:
        missing.append(f"it has the capabilities {' '.join(found.capabilities)}")
    if security.no_new_privileges and not found.no_new_privileges:
        missing.append("no_new_privs is not set")
    if security.read_only_root and not found.read_only_root:
        missing.append("its root file system is writable")
    if found.user != user_of(security):
        missing.append(f"it runs as {found.user}")
    open_files = DEFAULT_OPEN_FILES if limits.open_files is None else limits.open_files
    held = (
        ("limits.memory", memory_bytes_of(limits), found.memory_bytes),
        ("limits.disk", disk_bytes_of(limits), found.disk_bytes),
        ("limits.open_files", open_files, found.open_files),
    )
    for name, wanted, actual in held:
        # The kernel rounds sizes to pages.
        if actual is None or actual > wanted + _PAGE:
            missing.append(f"{name} is {'none' if actual is None else actual} instead of {wanted}")
    if found.pids_limit is None:
        missing.append("there is no limit of processes")
    return missing


def mount_shortfalls(container: Mapping[str, object], mounts: Sequence[Mount]) -> list[str]:
    """Returns in what mounts are not as they were asked for, by the engine's `GET /containers/{id}/json`."""
    told = container.get("Mounts")
    entries = told if isinstance(told, list) else []
    found = {entry.get("Destination"): entry for entry in entries if isinstance(entry, Mapping)}
    missing = []
    for mount in mounts:
        held = found.get(mount.target, {})
        if held.get("Source") != mount.source:
            missing.append(f"{mount.source} is not at {mount.target}")
        elif mount.read_only and held.get("RW") is not False:
            missing.append(f"{mount.target} is writable")
    return missing


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
