"""From a workspace's configuration to the engine's container: the one place where hardening is decided."""

from __future__ import annotations

import json
import posixpath
import secrets
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Self

from agentic_isolation.errors import InvalidArgumentError, IsolationUnavailableError
from agentic_isolation.models import Mount, ResourceLimits, SecurityConfig, WorkspaceConfig
from agentic_isolation_service.core.ports import PlaceSpec
from agentic_isolation_service.core.validation import is_within
from agentic_isolation_service.guest.settings import times

GUEST_DIRECTORY = "/.agentic-isolation"
"""Where the guest's volume is mounted in containers of the empty image. In a workspace the name goes on at random."""
GUEST_NAME = "agentic-guest"
GUEST_PATH = f"{GUEST_DIRECTORY}/{GUEST_NAME}"
GUEST_SOCKET = "@agentic-isolation-guest"
"""In the abstract namespace: no workload can put another socket in its place."""
HOME = "/home/agent"
LABEL = "agentic-isolation"
WORKSPACE_LABEL = f"{LABEL}.workspace-id"
SERVICE_LABEL = f"{LABEL}.service"
"""Whose a workspace is, on its container and volume."""
ERRAND = "errand"
"""Value of LABEL on the containers of errands."""
GVISOR_RUNTIME = "runsc"

_RESERVED = ("/", "/proc", "/sys", "/dev", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/tmp", HOME)
_KERNELS = ("/proc/", "/sys/", "/dev/")
DEFAULT_USER = "1000:1000"
DEFAULT_CPU_MILLIS = 2000
DEFAULT_MEMORY_BYTES = 4 << 30
DEFAULT_DISK_BYTES = 2 << 30
"""At most, see disk_bytes_of."""
DEFAULT_OPEN_FILES = 4096
_TMP_BYTES = 256 << 20
_HOME_BYTES = 128 << 20
_MAX_COMMANDS = 80
"""Commands that run at a time, where there may be so many processes; more wait for their turn."""
_GUEST_PIDS = 32
_SHIM_PIDS = 8
"""Threads of the guest, and of the shim of each command, come on top of the limit that is the workload's."""
_GVISOR_LEAST = {"cpu_millis": 20, "memory_bytes": 32 << 20}
"""Of the limits, with which a sandbox comes up at all: its own kernel is held to them, too."""
_GVISOR_PIDS = 4096
"""gVisor's own threads count against the container's limit, which kills the sandbox: there RLIMIT_NPROC holds the
workload's processes, which under other runtimes would count those of all containers with the same user."""


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """What was decided for one workspace."""

    spec: PlaceSpec
    image: str
    runtime: str
    """Empty: the engine's default."""
    guest_volume: str
    labels: dict[str, str]
    default_cpu_millis: int = DEFAULT_CPU_MILLIS
    network_id: str = ""
    """Empty: loopback only."""
    resolvers: tuple[str, ...] = ()
    """Name servers, where there is a network."""
    guest_directory: str = field(default_factory=lambda: f"{GUEST_DIRECTORY}-{secrets.token_hex(16)}")
    """Where the guest's volume is mounted. Engines follow an image's symbolic links to there and put an image's own
    volumes into it, so that no image may know it beforehand: the guest would be the image's."""

    @property
    def guest_path(self) -> str:
        """The guest's program."""
        return f"{self.guest_directory}/{GUEST_NAME}"


@dataclass(frozen=True, slots=True)
class ErrandPlan:
    """A container that runs the guest's program once, and in which nothing else ever runs."""

    image: str
    """The empty image (empty_image.py): in any other the guest could be the image's."""
    runtime: str
    guest_volume: str
    labels: dict[str, str]
    network: str = "none"
    capabilities: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ("version",)

    def on_host(self, *arguments: str) -> Self:
        """Returns the errand with these arguments, in the network of the engine's host, which it may configure."""
        return replace(self, network="host", capabilities=("NET_ADMIN",), arguments=arguments)

    def on_bridge(self, *arguments: str) -> Self:
        """Returns the errand with these arguments, on the engine's default bridge."""
        return replace(self, network="bridge", arguments=arguments)


def default_cpu_millis(cpus: int) -> int:
    """Returns the limit of workspaces that ask for none on an engine with so many CPUs, 0 for an unknown number."""
    return min(DEFAULT_CPU_MILLIS, cpus * 1000) if cpus > 0 else DEFAULT_CPU_MILLIS


def memory_bytes_of(limits: ResourceLimits) -> int:
    """Returns the limit of memory."""
    return _or_default(limits.memory_bytes, DEFAULT_MEMORY_BYTES)


def disk_bytes_of(limits: ResourceLimits) -> int:
    """Returns the size of the working directory's volume.

    What is in it is memory. Where nothing was asked it takes half of that at most, so that files are refused (ENOSPC)
    before they end the workspace: where they are all of its memory, there is nothing else that the kernel can kill.
    """
    return _or_default(limits.disk_bytes, min(DEFAULT_DISK_BYTES, memory_bytes_of(limits) // 2))


def container_name(workspace_id: str) -> str:
    """Returns the name of a workspace's container."""
    return f"agentic-{workspace_id}"


def with_defaults(config: WorkspaceConfig) -> WorkspaceConfig:
    """Returns a configuration whose protections and limits all are what holds; of CPUs a small engine gives fewer."""
    security, limits = config.security or SecurityConfig.production(), config.limits or ResourceLimits()
    return replace(
        config,
        security=replace(security, user=user_of(security)),
        limits=ResourceLimits(
            cpu=_or_default(limits.cpu_millis, DEFAULT_CPU_MILLIS) / 1000,
            memory=memory_bytes_of(limits),
            disk=disk_bytes_of(limits),
            open_files=_or_default(limits.open_files, DEFAULT_OPEN_FILES),
            network=bool(limits.network),
        ),
    )


def check_working_dir(path: str) -> None:
    """Raises InvalidArgumentError where a working directory would hide what the container needs."""
    normal = _normal(path)
    if normal in _RESERVED or normal.startswith(_KERNELS):
        raise InvalidArgumentError(
            f"{path!r} is the system's; use a directory of its own such as /workspace", field="working_dir"
        )


def check_mounts(config: WorkspaceConfig) -> None:
    """Raises InvalidArgumentError where a mount would hide what the container needs.

    One that others lie in would have the engine make directories for them, on its host.
    """
    for position, mount in enumerate(config.mounts):
        field, target = f"mounts[{position}].target", mount.target
        if target in _RESERVED or target.startswith(_KERNELS):
            raise InvalidArgumentError(f"{target!r} is the system's; use a path of its own such as /data", field=field)
        for place in (_normal(config.working_dir), HOME, "/tmp"):
            if is_within(place, target):
                raise InvalidArgumentError(
                    f"{target!r} would be in the place of the workspace's own {place!r}; use a path in it or beside it",
                    field=field,
                )


def check_sandbox(limits: ResourceLimits) -> None:
    """Raises IsolationUnavailableError where limits are too low for gVisor."""
    for name, least in _GVISOR_LEAST.items():
        value = getattr(limits, name)
        if value is not None and value < least:
            raise IsolationUnavailableError(
                f"{value} is too little for gVisor, whose own kernel is held to it: it takes {least} at least; or make "
                "the workspace without gVisor",
                field=f"limits.{name}",
            )


def shape_of(config: WorkspaceConfig) -> Hashable:
    """Returns what tells containers apart: all that follows from a configuration, but for whose it is."""
    security, limits = config.security or SecurityConfig.production(), config.limits or ResourceLimits()
    return (
        config.image,
        config.working_dir.rstrip("/"),
        replace(security, user=user_of(security)),
        limits.cpu_millis,
        memory_bytes_of(limits),
        disk_bytes_of(limits),
        _or_default(limits.open_files, DEFAULT_OPEN_FILES),
        bool(limits.network),
        tuple(config.mounts),
    )


def container_config(plan: ContainerPlan) -> dict[str, object]:
    """Returns the body of the engine's `POST /containers/create` (Docker Engine API 1.41)."""
    config = plan.spec.config
    security = config.security or SecurityConfig.production()
    user = user_of(security)
    return {
        "Image": plan.image,
        "Entrypoint": [plan.guest_path, "serve"],
        "Cmd": [],
        "User": user,
        "Env": [f"AGENTIC_GUEST_CONFIG={_guest_settings(plan, security)}", f"HOME={HOME}"],
        "WorkingDir": "/",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": plan.labels | {WORKSPACE_LABEL: plan.spec.workspace_id},
        # The guest takes no other signal for a reason to end.
        "StopSignal": "SIGKILL",
        "NetworkDisabled": False,
        "HostConfig": _host_config(plan, security, config.limits or ResourceLimits(), user),
    }


def errand_config(plan: ErrandPlan) -> dict[str, object]:
    """Returns the body of the engine's `POST /containers/create` for an errand."""
    return {
        "Image": plan.image,
        "Entrypoint": [GUEST_PATH, *plan.arguments],
        "Cmd": [],
        "User": "0:0" if plan.capabilities else DEFAULT_USER,
        "WorkingDir": "/",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": plan.labels | {LABEL: ERRAND},
        "HostConfig": {
            "Runtime": plan.runtime,
            "CapAdd": list(plan.capabilities),
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "Mounts": [{"Type": "volume", "Source": plan.guest_volume, "Target": GUEST_DIRECTORY, "ReadOnly": True}],
            "NetworkMode": plan.network,
            # Capabilities in a user namespace of the engine's would not count in the host's network.
            "UsernsMode": "host" if plan.network == "host" else "",
            "PidsLimit": 64,
            "Memory": 128 << 20,
            "LogConfig": {"Type": "json-file"},
        },
    }


def never_started_config(plan: ContainerPlan) -> dict[str, object]:
    """Returns the body of the engine's `POST /containers/create` for one that only has a workspace's volume mounted."""
    size = disk_bytes_of(plan.spec.config.limits or ResourceLimits())
    volume = _working_volume(plan, user_of(plan.spec.config.security or SecurityConfig.production()), size)
    return {
        "Image": plan.image,
        "Entrypoint": [plan.guest_path],
        "Labels": plan.labels | {LABEL: ERRAND},
        "HostConfig": {"Mounts": [volume], "NetworkMode": "none"},
    }


def _host_config(plan: ContainerPlan, security: SecurityConfig, limits: ResourceLimits, user: str) -> dict[str, object]:
    memory = memory_bytes_of(limits)
    open_files = _or_default(limits.open_files, DEFAULT_OPEN_FILES)
    pids = pids_limit_of(security)
    gvisor = plan.runtime == GVISOR_RUNTIME
    return {
        "AutoRemove": True,
        "Runtime": plan.runtime,
        "Init": False,
        "Privileged": False,
        "CapAdd": [],
        "CapDrop": ["ALL"] if security.cap_drop_all else [],
        "SecurityOpt": ["no-new-privileges"] if security.no_new_privileges else [],
        "ReadonlyRootfs": security.read_only_root,
        "Tmpfs": _tmpfs(security, user),
        "Mounts": [
            {"Type": "volume", "Source": plan.guest_volume, "Target": plan.guest_directory, "ReadOnly": True},
            _working_volume(plan, user, disk_bytes_of(limits)),
            *map(_bind, plan.spec.config.mounts),
        ],
        "NetworkMode": plan.network_id or "none",
        "Dns": list(plan.resolvers),
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "PidsLimit": _GVISOR_PIDS if gvisor else pids,
        "Memory": memory,
        "MemorySwap": memory,
        "NanoCpus": _or_default(limits.cpu_millis, plan.default_cpu_millis) * 1_000_000,
        "Ulimits": [
            {"Name": name, "Soft": limit, "Hard": limit}
            for name, limit in (("nofile", open_files), ("core", 0), *([("nproc", pids)] if gvisor else []))
        ],
        "ShmSize": 64 << 20,
        "LogConfig": {"Type": "none"},
        "RestartPolicy": {"Name": "no"},
    }


def _tmpfs(security: SecurityConfig, user: str) -> dict[str, str]:
    owner = _owner(user)
    tmpfs = {}
    if security.tmpfs_tmp:
        tmpfs["/tmp"] = f"rw,noexec,nosuid,nodev,size={_TMP_BYTES},mode=1777"
    if security.tmpfs_home:
        tmpfs[HOME] = f"rw,exec,nosuid,nodev,size={_HOME_BYTES},mode=0700,{owner}"
    return tmpfs


def _working_volume(plan: ContainerPlan, user: str, size: int) -> dict[str, object]:
    """An anonymous volume that is a tmpfs: the size is a limit, and it goes away with its container."""
    options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={size},mode=0755,nosuid,nodev,{_owner(user)}"}
    return {
        "Type": "volume",
        "Target": plan.spec.config.working_dir,
        "VolumeOptions": {
            "NoCopy": True,
            "Labels": plan.labels | {WORKSPACE_LABEL: plan.spec.workspace_id},
            "DriverConfig": {"Name": "local", "Options": options},
        },
    }


def _bind(mount: Mount) -> dict[str, object]:
    """A path of the host alone: before Docker 25 what is mounted below it would be writable whatever was asked."""
    return {
        "Type": "bind",
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "BindOptions": {"Propagation": "private", "NonRecursive": True},
    }


def _guest_settings(plan: ContainerPlan, security: SecurityConfig) -> str:
    spec = plan.spec
    settings: dict[str, object] = {
        "workspace_id": spec.workspace_id,
        "key": spec.key.hex(),
        "socket": GUEST_SOCKET,
        "root": "/",
        "working_dir": spec.config.working_dir,
        **times(spec.config, request_window=spec.request_window),
        "no_new_privileges": security.no_new_privileges,
        # On top of the engine's seccomp profile. gVisor's kernel has neither of the two.
        "refuse_calls": security.no_new_privileges and plan.runtime != GVISOR_RUNTIME,
        "max_commands": _max_commands(security),
    }
    if plan.runtime == GVISOR_RUNTIME:
        # Docker's name server is a redirection in the host's kernel, and unknown to gVisor's.
        settings["resolvers"] = plan.resolvers
    return json.dumps(settings)


def _max_commands(security: SecurityConfig) -> int:
    return min(_MAX_COMMANDS, security.pids_limit)


def pids_limit_of(security: SecurityConfig) -> int:
    """Returns how many processes and threads there may be, with those that supervise the workload's."""
    return security.pids_limit + _GUEST_PIDS + _SHIM_PIDS * _max_commands(security)


def user_of(security: SecurityConfig) -> str:
    """Returns whom commands run as, as UID:GID; for a user alone the engine would look into the image for the group."""
    uid, _, gid = (security.user or DEFAULT_USER).partition(":")
    return f"{uid}:{gid or uid}"


def _owner(user: str) -> str:
    uid, _, gid = user.partition(":")
    return f"uid={uid},gid={gid}"


def _normal(path: str) -> str:
    """Returns an absolute path as the engine reads it; normpath alone keeps two slashes at the beginning."""
    return "/" + posixpath.normpath(path).lstrip("/")


def _or_default(value: int | None, default: int) -> int:
    return default if value is None else value
