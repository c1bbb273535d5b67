"""Values that go in and out: configuration, and what a service tells of itself and its workspaces.

All are frozen. Times are seconds (float) where a person writes them and milliseconds where a name ends in `_ms`; sizes
are bytes. `None` means "not said": the service's safe default applies, which the field's docstring states.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from agentic_isolation.errors import InvalidArgumentError

__all__ = [
    "FileInfo",
    "FileType",
    "Isolation",
    "Mount",
    "NetworkMode",
    "PoolInfo",
    "ProviderInfo",
    "ResourceLimits",
    "ResourceUsage",
    "SecurityConfig",
    "ServerInfo",
    "WorkspaceConfig",
    "WorkspaceInfo",
    "WorkspaceState",
    "parse_size",
]

_SIZE = re.compile(r"(\d{1,4000}(?:\.\d{1,4000})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(size: int | str, *, field: str) -> int:
    """Returns a size in bytes, given as bytes or as a number with a binary unit ("512M", "4G", "1.5GiB").

    Raises:
        InvalidArgumentError: It is neither; the error names `field`.
    """
    if isinstance(size, int):
        return size
    match = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    if match is None:
        raise InvalidArgumentError(f"{size!r} is no size; write for example 536870912 or '512M'", field=field)
    from fractions import Fraction

    # A fraction, not a float: sizes are exact, however many digits they have.
    return round(Fraction(match[1]) * _SIZE_UNITS[match[2].upper()])


class WorkspaceState(Enum):
    """Where a workspace is in its life."""

    CREATING = "creating"
    READY = "ready"
    LOST = "lost"
    DESTROYING = "destroying"


class NetworkMode(Enum):
    """What a workspace can reach over the network."""

    NONE = "none"
    OUTBOUND = "outbound"


class FileType(Enum):
    """What a directory entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Protections of a workspace; the defaults are production's.

    Asking for one that the provider cannot give is an IsolationUnavailableError. The local provider gives
    `no_new_privileges` only, so leave `security` out there.
    """

    cap_drop_all: bool = True
    """Drop all Linux capabilities."""
    no_new_privileges: bool = True
    """Setuid programs gain nothing (prctl(2), PR_SET_NO_NEW_PRIVS)."""
    read_only_root: bool = True
    """Mount the root file system read-only."""
    tmpfs_tmp: bool = True
    """A tmpfs (noexec, nosuid) of 256 MiB on /tmp."""
    tmpfs_home: bool = True
    """A tmpfs (nosuid) of 128 MiB on /home/agent."""
    pids_limit: int = 256
    """Processes and threads of the workspace, 16 to 32,768; room for those that supervise it lies on top."""
    use_gvisor: bool | None = None
    """None: when the engine has it. True: required. False: never."""
    user: str | None = None
    """`UID` or `UID:GID` in numbers. None: 1000:1000 in a container."""

    @classmethod
    def production(cls) -> SecurityConfig:
        """Everything on: for code that nobody has read."""
        return cls()

    @classmethod
    def development(cls) -> SecurityConfig:
        """A writable root file system and no gVisor: easier to debug, weaker. Not for production."""
        return cls(read_only_root=False, use_gvisor=False)


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """What a workspace may use. Asking for a limit that the provider cannot hold is an IsolationUnavailableError."""

    cpu: float | str | None = None
    """CPUs, for example 2, 0.5 or "1.5". None: 2, or all of the engine's host where it has fewer."""
    memory: int | str | None = None
    """Bytes, or a number with a binary unit: "512M", "4G". None: 4 GiB."""
    disk: int | str | None = None
    """Size of the working directory's volume, in the same units. It is a part of the memory. None: half of it, 2 GiB
    at most."""
    open_files: int | None = None
    """Open files per process. None: 4,096."""
    network: bool | None = None
    """True: outward connections. False: loopback only. None: loopback only where the provider can hold it."""

    @property
    def cpu_millis(self) -> int | None:
        """`cpu` in thousandths of a CPU. Raises InvalidArgumentError where it is no number."""
        if self.cpu is None:
            return None
        try:
            return round(float(self.cpu) * 1000)
        except (TypeError, ValueError, OverflowError):
            raise InvalidArgumentError(
                f"{self.cpu!r} is no number of CPUs; write for example 2 or 0.5", field="limits.cpu"
            ) from None

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes. Raises InvalidArgumentError where it is no size."""
        return None if self.memory is None else parse_size(self.memory, field="limits.memory")

    @property
    def disk_bytes(self) -> int | None:
        """`disk` in bytes. Raises InvalidArgumentError where it is no size."""
        return None if self.disk is None else parse_size(self.disk, field="limits.disk")


@dataclass(frozen=True, slots=True)
class Mount:
    """A path of the engine's host that a workspace has."""

    source: str
    """On the host: absolute, without "..". Whoever has the service says whose workspaces may have which."""
    target: str
    """In the workspace, likewise."""
    read_only: bool = True
    """Whether nothing can be changed there."""


@dataclass(frozen=True, slots=True)
class WorkspaceConfig:
    """How to make a workspace."""

    provider: str = "docker"
    """"docker", or "local": a plain directory, not isolated, for development."""
    image: str | None = None
    """Image for the docker provider. None: the service's default."""
    working_dir: str = "/workspace"
    """Absolute path of the directory that commands start in."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment of every command. Values are in no repr and in no log."""
    security: SecurityConfig | None = None
    """None: production, as far as the provider goes."""
    limits: ResourceLimits | None = None
    """None: the service's defaults."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """For finding workspaces again. No place for secrets."""
    lease: float = 300.0
    """Seconds after which the workspace ends by itself when it is not renewed; AgenticWorkspace renews it."""
    idle_timeout: float | None = None
    """Seconds after which it ends when nothing is under way in it; None: never. What commands that have ended left
    in the background does not count."""
    max_lifetime: float | None = None
    """Seconds after which it ends, however often its lease is renewed; None: no limit."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables of every command whose values are given to processes only, and are written down nowhere."""
    mounts: Sequence[Mount] = ()
    """Paths of the engine's host, at most 16."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """The isolation that a workspace has, read back from its place; None where the provider cannot tell."""

    runtime: str
    """What runs it: "local" (an ordinary process of the host), "runc", "runsc" (gVisor)."""
    user: str = ""
    """"UID:GID" of commands."""
    capabilities: Sequence[str] = ()
    """Names of the capabilities that commands have."""
    no_new_privileges: bool | None = None
    """Whether no_new_privs is set."""
    seccomp: str = ""
    """"disabled", "strict" or "filter"."""
    read_only_root: bool | None = None
    """Whether the root file system is read-only."""
    network: NetworkMode | None = None
    """What it can reach."""
    cpu_millis: int | None = None
    """Limit in thousandths of a CPU; None: not limited."""
    memory_bytes: int | None = None
    """Limit; None: not limited."""
    disk_bytes: int | None = None
    """Limit; None: not limited."""
    open_files: int | None = None
    """Limit per process; None: not limited."""
    pids_limit: int | None = None
    """Limit; None: not limited."""
    kernel: str = ""
    """Kernel release that commands see."""


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """What a workspace uses now; None where the provider cannot tell."""

    memory_bytes: int | None = None
    cpu_seconds: float | None = None
    pids: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class WorkspaceInfo:
    """A workspace as the service describes it."""

    id: str
    provider: str
    state: WorkspaceState
    working_dir: str
    created_at: datetime
    lease_expires_at: datetime
    isolation: Isolation
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    usage: ResourceUsage | None = None
    """Only from a look at this one workspace."""
    host_path: str = ""
    """Where its files lie on the service's host; local provider only."""
    tenant: str = ""
    """The tenant whose it is; empty: of whoever runs the service."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file or directory."""

    path: str
    """Absolute, as seen in the workspace."""
    name: str
    type: FileType
    size_bytes: int
    mode: int
    """Permission bits, 0 to 0o7777."""
    modified_at: datetime
    symlink_target: str = ""


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """A provider and what it can give on the service's host."""

    name: str
    available: bool
    unavailable_reason: str = ""
    isolation: Isolation | None = None
    """Of a workspace that asks for nothing."""


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """A pool of a service: places of one kind that are ready before anybody asks for them."""

    name: str
    provider: str
    image: str
    """Empty: the provider's default, or none."""
    ready: int
    """Places that wait for somebody."""
    wanted: int
    """Places that there should be now, from `min` to `max`, by what was asked for."""
    min: int
    max: int
    hits: int
    """Workspaces that were given out of it since the service has started."""
    misses: int
    """Workspaces that it had none ready for, and that were made as if there were no pool."""
    refilling: bool = False
    """Whether a place is being made."""
    last_error: str = ""
    """Why the last place could not be made; empty where it could."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A service's description."""

    version: str
    providers: Sequence[ProviderInfo]
    workspaces_limit: int
    lease_limit: float
    """Seconds."""
    output_limit_bytes: int
    message_bytes: int
    request_window: float = 0.0
    """Seconds that a request id is remembered after its request has ended."""
    pools: Sequence[PoolInfo] = ()
    """What it keeps ready."""
    replica: str = ""
    """What it is called among the replicas behind one proxy; empty: it is the only one."""
