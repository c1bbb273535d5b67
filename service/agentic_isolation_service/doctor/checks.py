"""Looks at what workspaces need: the engine, its runtimes and limits, the image, the guest, the disk."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiodocker

from agentic_isolation import Isolation, IsolationError, NetworkMode
from agentic_isolation_service.doctor.findings import Check, Status
from agentic_isolation_service.doctor.profiles import LOCAL, GVisor, Profile
from agentic_isolation_service.guest.binary import guest_binary
from agentic_isolation_service.providers.docker.container import GVISOR_RUNTIME
from agentic_isolation_service.providers.docker.engine import Engine

_OLDEST_API = (1, 41)
_LITTLE_DISK = 5 << 30
_INSTALL_GVISOR = "install runsc and register it by `runsc install`; see gvisor.dev"


def _ok(name: str, detail: str) -> Check:
    return Check(name, Status.OK, detail)


def _warning(name: str, detail: str) -> Check:
    return Check(name, Status.WARNING, detail)


def _failed(name: str, detail: str) -> Check:
    return Check(name, Status.FAILED, detail)


async def check_engine(host: str | None, image: str, gvisor: GVisor) -> list[Check]:
    """Looks at an engine and at what is in it.

    Args:
        host: As DOCKER_HOST spells it; None: DOCKER_HOST, else the standard socket.
        image: The image of the workspaces to come.
        gvisor: Whether gVisor is asked for.
    """
    engine = Engine(host)
    try:
        await engine.facts()  # it is an engine
        async with engine.client() as client:
            info: Mapping[str, Any] = await client.system.info()
            version: Mapping[str, Any] = await client.version()
            found = await _image(client, image)
    except IsolationError as error:
        return [_failed("engine", str(error))]
    except aiodocker.DockerError as error:
        return [_failed("engine", f"the Docker Engine at {engine.host} refuses to answer: {error.message}")]
    finally:
        await engine.aclose()
    return [
        _version(engine.host, version),
        _platform(info),
        _gvisor(info, gvisor),
        _cgroups(info),
        _security(info),
        await _disk(engine.host, info),
        found,
    ]


async def _image(client: aiodocker.Docker, image: str) -> Check:
    try:
        await client.images.inspect(image)
    except aiodocker.DockerError as error:
        if error.status == 400:
            return _failed("image", f"{image!r} is no name of an image: {error.message}")
        if error.status == 404:
            return _warning("image", f"{image} is not there; the engine has to pull it")
        raise
    return _ok("image", image)


def _version(host: str, version: Mapping[str, Any]) -> Check:
    api = str(version.get("ApiVersion", ""))
    words = f"{version.get('Version', '?')} (API {api}) at {host}"
    numbers = tuple(int(number) for number in api.split(".") if number.isdecimal())
    if numbers < _OLDEST_API:
        oldest = ".".join(map(str, _OLDEST_API))
        return _failed("engine", f"{words} is too old: API {oldest} (Docker 20.10) is needed")
    return _ok("engine", words)


def _platform(info: Mapping[str, Any]) -> Check:
    system, machine = str(info.get("OSType", "")), str(info.get("Architecture", ""))
    words = f"{system}/{machine}, kernel {info.get('KernelVersion', '?')}"
    if system != "linux":
        return _failed("platform", f"{words}: only Linux containers are supported")
    try:
        guest = guest_binary(system, machine)
    except IsolationError as error:
        return _failed("platform", f"{words}: {error}")
    return _ok("platform", f"{words}; guest {guest.name}")


def _gvisor(info: Mapping[str, Any], wanted: GVisor) -> Check:
    known = sorted(info.get("Runtimes") or {})
    if GVISOR_RUNTIME in known:
        return _ok("gVisor", "the engine has it" if wanted is not GVisor.NEVER else "the engine has it; not used")
    words = f"the engine has no {GVISOR_RUNTIME} (its runtimes: {', '.join(known) or 'none'})"
    if wanted is GVisor.REQUIRED:
        return _failed("gVisor", f"{words}; {_INSTALL_GVISOR}")
    return _warning("gVisor", f"{words}, so workspaces share the host's kernel; {_INSTALL_GVISOR}")


def _cgroups(info: Mapping[str, Any]) -> Check:
    words = f"version {info.get('CgroupVersion', '1')}, driver {info.get('CgroupDriver', '?')}"
    limits = {"MemoryLimit": "memory", "PidsLimit": "pids", "CpuCfsQuota": "cpu"}
    missing = [name for field, name in limits.items() if not info.get(field, True)]
    if missing:
        return _failed("cgroups", f"{words}: the engine cannot limit {', '.join(missing)}")
    if not info.get("SwapLimit", True):
        return _warning("cgroups", f"{words}: the engine cannot limit swap, so memory is limited without it")
    return _ok("cgroups", f"{words}; limits of memory, swap, pids, cpu")


def _security(info: Mapping[str, Any]) -> Check:
    options = [str(option).removeprefix("name=") for option in info.get("SecurityOptions") or []]
    if not any(option.startswith("seccomp") for option in options):
        return _failed("security", f"the engine has no seccomp (it has: {', '.join(options) or 'nothing'})")
    return _ok("security", "; ".join(options))


async def _disk(host: str, info: Mapping[str, Any]) -> Check:
    root = Path(str(info.get("DockerRootDir", "")))
    words = f"{info.get('Driver', '?')} in {root}"
    unknown = _ok("disk", f"{words}, which cannot be looked at from here")
    if not host.startswith("unix://"):
        return unknown
    try:
        usage = await asyncio.to_thread(shutil.disk_usage, root)
    except OSError:  # it is another machine's, or in a directory that is the engine's user's alone
        return unknown
    words = f"{words}, {usage.free >> 30} GiB free"
    return _ok("disk", words) if usage.free >= _LITTLE_DISK else _warning("disk", words)


async def check_local_guest() -> Check:
    """Looks at the guest for this host's own platform."""
    try:
        binary = guest_binary()
        result = await asyncio.to_thread(
            subprocess.run, [str(binary), "version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (IsolationError, OSError, subprocess.SubprocessError) as error:
        return _failed("guest", str(error))
    return _ok("guest", f"{result.stdout.strip()} for {sys.platform}")


def check_isolation(profile: Profile, isolation: Isolation, start_seconds: float) -> Check:
    """Compares the isolation that a workspace has with what its profile asks for."""
    name = f"{profile.name} workspace"
    words = f"made in {start_seconds:.1f} s under {isolation.runtime}"
    if profile.name == LOCAL:
        return _warning(name, f"{words}; the local provider isolates nothing: for trusted code only")
    security = profile.security
    missing = []
    if not isolation.user or isolation.user.startswith("0:"):
        missing.append(f"its user is {isolation.user or 'not known'}")
    if isolation.capabilities:
        missing.append(f"it has the capabilities {' '.join(isolation.capabilities)}")
    if security is not None and security.read_only_root and not isolation.read_only_root:
        missing.append("its root file system is writable")
    if isolation.network is not NetworkMode.NONE:
        missing.append("it has a network")
    # gVisor takes the place of the host's seccomp filter, and keeps setuid programs from gaining anything by itself.
    if isolation.runtime != GVISOR_RUNTIME:
        if not isolation.no_new_privileges:
            missing.append("no_new_privs is not set")
        if isolation.seccomp != "filter":
            missing.append(f"seccomp is {isolation.seccomp or 'not known'}")
    limits = ("cpu_millis", "memory_bytes", "disk_bytes", "open_files", "pids_limit")
    missing += [f"there is no limit of {limit}" for limit in limits if getattr(isolation, limit) is None]
    if missing:
        return _failed(name, f"{words}, but {'; '.join(missing)}")
    return _ok(name, f"{words} as user {isolation.user}, no capabilities, all limits; kernel {isolation.kernel}")
