"""Messages of the contract ↔ models, both ways, for client and server alike. Checks no ranges: the server validates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from agentic_isolation._wire import check_mapping, check_seconds, check_series, check_text, check_type, check_unsigned
from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.models import (
    FileInfo,
    FileType,
    Isolation,
    Mount,
    NetworkMode,
    PoolInfo,
    ProviderInfo,
    ResourceLimits,
    ResourceUsage,
    SecurityConfig,
    ServerInfo,
    WorkspaceConfig,
    WorkspaceInfo,
    WorkspaceState,
)
from agentic_isolation.v1 import workspace_pb2 as pb

_E = TypeVar("_E", bound=Enum)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_STATES = {state: pb.WorkspaceState.Value(f"WORKSPACE_STATE_{state.name}") for state in WorkspaceState}
_NETWORKS = {mode: pb.NetworkMode.Value(f"NETWORK_MODE_{mode.name}") for mode in NetworkMode}
_REACHABLE = {pb.NETWORK_MODE_UNSPECIFIED: None, pb.NETWORK_MODE_NONE: False, pb.NETWORK_MODE_OUTBOUND: True}
_FILE_TYPES = {kind: pb.FileType.Value(f"FILE_TYPE_{kind.name}") for kind in FileType}


def named(numbers: Mapping[_E, int], number: int, default: _E) -> _E:
    """Returns the enum member of a number; a newer server's unknown number is the default."""
    for member, its_number in numbers.items():
        if its_number == number:
            return member
    return default


def duration_to_pb(seconds: float, field: str = "duration") -> Duration:
    """Seconds → Duration. Raises InvalidArgumentError, naming the field, where they are not finite or too many."""
    check_seconds(seconds, field)
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def duration_from_pb(duration: Duration) -> float:
    """Duration → seconds."""
    return float(duration.seconds + duration.nanos / 1e9)


def asked_seconds(duration: Duration, field: str) -> float:
    """Duration of a request → seconds. Raises InvalidArgumentError, naming the field, where it is not normalised."""
    seconds, nanos = duration.seconds, duration.nanos
    if abs(nanos) >= 10**9 or seconds * nanos < 0:
        raise InvalidArgumentError(
            f"{seconds} s and {nanos} ns are no Duration: nanos are below 10^9 and have the sign of the seconds",
            field=field,
        )
    return duration_from_pb(duration)


def _asked_optional(request: Message, field: str) -> float | None:
    return asked_seconds(getattr(request, field), field) if request.HasField(field) else None


def _optional_duration(seconds: float | None, field: str) -> Duration | None:
    return None if seconds is None else duration_to_pb(seconds, field)


def _optional_flag(flag: bool | None, field: str) -> bool | None:
    return None if flag is None else check_type(flag, field, bool)


def timestamp_to_pb(time: dt.datetime) -> Timestamp:
    """Aware datetime → Timestamp."""
    # protobuf's own conversions, by way of a calendar, take several times as long.
    since = time - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def timestamp_from_pb(timestamp: Timestamp) -> dt.datetime:
    """Timestamp → aware datetime."""
    return _EPOCH + dt.timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)


def config_to_pb(config: WorkspaceConfig) -> pb.CreateWorkspaceRequest:
    """WorkspaceConfig → CreateWorkspaceRequest without a request_id.

    Raises InvalidArgumentError where a field holds what no message can carry.
    """
    return pb.CreateWorkspaceRequest(
        provider=check_text(config.provider, "provider"),
        image=check_text(config.image or "", "image"),
        working_dir=check_text(config.working_dir, "working_dir"),
        environment=texts_to_pb(config.environment, "environment"),
        security=None if config.security is None else security_to_pb(config.security),
        limits=None if config.limits is None else limits_to_pb(config.limits),
        labels=texts_to_pb(config.labels, "labels"),
        lease_duration=duration_to_pb(config.lease, "lease_duration"),
        idle_timeout=_optional_duration(config.idle_timeout, "idle_timeout"),
        max_lifetime=_optional_duration(config.max_lifetime, "max_lifetime"),
        secrets=texts_to_pb(config.secrets, "secrets"),
        mounts=[
            _mount_to_pb(mount, f"mounts[{at}]")
            for at, mount in enumerate(check_series(config.mounts, "mounts", "Mount"))
        ],
    )


def config_from_pb(request: pb.CreateWorkspaceRequest) -> WorkspaceConfig:
    """CreateWorkspaceRequest → WorkspaceConfig, with the contract's defaults for what is absent.

    Raises:
        InvalidArgumentError: A Duration is none.
    """
    default, lease = WorkspaceConfig(), _asked_optional(request, "lease_duration")
    return WorkspaceConfig(
        provider=request.provider,
        image=request.image or None,
        working_dir=request.working_dir or default.working_dir,
        environment=dict(request.environment),
        security=security_from_pb(request.security) if request.HasField("security") else None,
        limits=limits_from_pb(request.limits) if request.HasField("limits") else None,
        labels=dict(request.labels),
        lease=default.lease if lease is None else lease,
        idle_timeout=_asked_optional(request, "idle_timeout"),
        max_lifetime=_asked_optional(request, "max_lifetime"),
        secrets=dict(request.secrets),
        mounts=tuple(
            Mount(mount.source, mount.target, read_only=not mount.HasField("read_only") or mount.read_only)
            for mount in request.mounts
        ),
    )


def _mount_to_pb(mount: Mount, field: str) -> pb.Mount:
    mount = check_type(mount, field, Mount)
    return pb.Mount(
        source=check_text(mount.source, f"{field}.source"),
        target=check_text(mount.target, f"{field}.target"),
        read_only=check_type(mount.read_only, f"{field}.read_only", bool),
    )


def security_to_pb(security: SecurityConfig) -> pb.SecurityConfig:
    """SecurityConfig → message."""
    security = check_type(security, "security", SecurityConfig)
    return pb.SecurityConfig(
        cap_drop_all=check_type(security.cap_drop_all, "security.cap_drop_all", bool),
        no_new_privileges=check_type(security.no_new_privileges, "security.no_new_privileges", bool),
        read_only_root=check_type(security.read_only_root, "security.read_only_root", bool),
        tmpfs_tmp=check_type(security.tmpfs_tmp, "security.tmpfs_tmp", bool),
        tmpfs_home=check_type(security.tmpfs_home, "security.tmpfs_home", bool),
        pids_limit=check_unsigned(security.pids_limit, "security.pids_limit", bits=32),
        use_gvisor=_optional_flag(security.use_gvisor, "security.use_gvisor"),
        user=None if security.user is None else check_text(security.user, "security.user"),
    )


def security_from_pb(message: pb.SecurityConfig) -> SecurityConfig:
    """Message → SecurityConfig; absent fields have their production value."""
    present = {field.name: value for field, value in message.ListFields()}
    return SecurityConfig(**present)


def limits_to_pb(limits: ResourceLimits) -> pb.ResourceLimits:
    """ResourceLimits → message. Raises InvalidArgumentError where a limit is no number or size."""
    limits = check_type(limits, "limits", ResourceLimits)
    network = {None: None, False: NetworkMode.NONE, True: NetworkMode.OUTBOUND}[
        _optional_flag(limits.network, "limits.network")
    ]
    return pb.ResourceLimits(
        cpu_millis=check_unsigned(limits.cpu_millis, "limits.cpu_millis", bits=32),
        memory_bytes=check_unsigned(limits.memory_bytes, "limits.memory_bytes", bits=64),
        disk_bytes=check_unsigned(limits.disk_bytes, "limits.disk_bytes", bits=64),
        open_files_count=check_unsigned(limits.open_files, "limits.open_files_count", bits=32),
        network=_network_to_pb(network),
    )


def limits_from_pb(message: pb.ResourceLimits) -> ResourceLimits:
    """Message → ResourceLimits. Raises InvalidArgumentError where the network is of a kind that is not known."""
    if message.network not in _REACHABLE:
        raise InvalidArgumentError(
            f"{message.network} is no NetworkMode that this service knows", field="limits.network"
        )
    return ResourceLimits(
        cpu=message.cpu_millis / 1000 if message.HasField("cpu_millis") else None,
        memory=message.memory_bytes if message.HasField("memory_bytes") else None,
        disk=message.disk_bytes if message.HasField("disk_bytes") else None,
        open_files=message.open_files_count if message.HasField("open_files_count") else None,
        network=_REACHABLE[message.network],
    )


def _network_to_pb(network: NetworkMode | None) -> pb.NetworkMode.ValueType:
    return pb.NETWORK_MODE_UNSPECIFIED if network is None else _NETWORKS[network]


def workspace_to_pb(info: WorkspaceInfo) -> pb.Workspace:
    """WorkspaceInfo → Workspace."""
    return pb.Workspace(
        workspace_id=info.id,
        provider=info.provider,
        image=info.image,
        state=_STATES[info.state],
        working_dir=info.working_dir,
        labels=info.labels,
        create_time=timestamp_to_pb(info.created_at),
        lease_expire_time=timestamp_to_pb(info.lease_expires_at),
        isolation=isolation_to_pb(info.isolation),
        usage=None if info.usage is None else _usage_to_pb(info.usage),
        host_path=info.host_path,
        tenant=info.tenant,
    )


def workspace_from_pb(message: pb.Workspace) -> WorkspaceInfo:
    """Workspace → WorkspaceInfo."""
    return WorkspaceInfo(
        id=message.workspace_id,
        provider=message.provider,
        image=message.image,
        state=named(_STATES, message.state, WorkspaceState.READY),
        working_dir=message.working_dir,
        labels=dict(message.labels),
        created_at=timestamp_from_pb(message.create_time),
        lease_expires_at=timestamp_from_pb(message.lease_expire_time),
        isolation=isolation_from_pb(message.isolation),
        usage=_usage_from_pb(message.usage) if message.HasField("usage") else None,
        host_path=message.host_path,
        tenant=message.tenant,
    )


def _usage_to_pb(usage: ResourceUsage) -> pb.ResourceUsage:
    return pb.ResourceUsage(
        memory_bytes=usage.memory_bytes,
        cpu_time=None if usage.cpu_seconds is None else duration_to_pb(usage.cpu_seconds),
        pids_count=usage.pids,
        disk_bytes=usage.disk_bytes,
    )


def _usage_from_pb(message: pb.ResourceUsage) -> ResourceUsage:
    return ResourceUsage(
        memory_bytes=message.memory_bytes if message.HasField("memory_bytes") else None,
        cpu_seconds=duration_from_pb(message.cpu_time) if message.HasField("cpu_time") else None,
        pids=message.pids_count if message.HasField("pids_count") else None,
        disk_bytes=message.disk_bytes if message.HasField("disk_bytes") else None,
    )


def isolation_to_pb(isolation: Isolation) -> pb.Isolation:
    """Isolation → message."""
    return pb.Isolation(
        runtime=isolation.runtime,
        user=isolation.user,
        capabilities=isolation.capabilities,
        no_new_privileges=isolation.no_new_privileges,
        seccomp=isolation.seccomp,
        read_only_root=isolation.read_only_root,
        network=_network_to_pb(isolation.network),
        limits=pb.ResourceLimits(
            cpu_millis=isolation.cpu_millis,
            memory_bytes=isolation.memory_bytes,
            disk_bytes=isolation.disk_bytes,
            open_files_count=isolation.open_files,
        ),
        pids_limit=isolation.pids_limit,
        kernel=isolation.kernel,
    )


def isolation_from_pb(message: pb.Isolation) -> Isolation:
    """Message → Isolation."""
    limits = message.limits
    return Isolation(
        runtime=message.runtime,
        user=message.user,
        capabilities=tuple(message.capabilities),
        no_new_privileges=message.no_new_privileges if message.HasField("no_new_privileges") else None,
        seccomp=message.seccomp,
        read_only_root=message.read_only_root if message.HasField("read_only_root") else None,
        network=named(_NETWORKS, message.network, NetworkMode.NONE) if message.network else None,
        cpu_millis=limits.cpu_millis if limits.HasField("cpu_millis") else None,
        memory_bytes=limits.memory_bytes if limits.HasField("memory_bytes") else None,
        disk_bytes=limits.disk_bytes if limits.HasField("disk_bytes") else None,
        open_files=limits.open_files_count if limits.HasField("open_files_count") else None,
        pids_limit=message.pids_limit if message.HasField("pids_limit") else None,
        kernel=message.kernel,
    )


def texts_to_pb(texts: Mapping[str, str], field: str) -> dict[str, str]:
    named = check_mapping(texts, field).items()
    return {check_text(name, field): check_text(value, f'{field}["{name}"]') for name, value in named}


def file_to_pb(file: FileInfo) -> pb.FileInfo:
    """FileInfo → message."""
    return pb.FileInfo(
        path=file.path,
        name=file.name,
        type=_FILE_TYPES[file.type],
        size_bytes=file.size_bytes,
        mode=file.mode,
        modify_time=timestamp_to_pb(file.modified_at),
        symlink_target=file.symlink_target,
    )


def file_from_pb(message: pb.FileInfo) -> FileInfo:
    """Message → FileInfo."""
    return FileInfo(
        path=message.path,
        name=message.name,
        type=named(_FILE_TYPES, message.type, FileType.OTHER),
        size_bytes=message.size_bytes,
        mode=message.mode,
        modified_at=timestamp_from_pb(message.modify_time),
        symlink_target=message.symlink_target,
    )


def provider_to_pb(provider: ProviderInfo) -> pb.ProviderInfo:
    """ProviderInfo → message."""
    return pb.ProviderInfo(
        name=provider.name,
        available=provider.available,
        unavailable_reason=provider.unavailable_reason,
        isolation=None if provider.isolation is None else isolation_to_pb(provider.isolation),
    )


def pool_to_pb(pool: PoolInfo) -> pb.PoolInfo:
    """PoolInfo → message."""
    return pb.PoolInfo(
        name=pool.name,
        provider=pool.provider,
        image=pool.image,
        ready_count=pool.ready,
        wanted_count=pool.wanted,
        min_count=pool.min,
        max_count=pool.max,
        hits_count=pool.hits,
        misses_count=pool.misses,
        refilling=pool.refilling,
        last_error=pool.last_error,
    )


def pool_from_pb(message: pb.PoolInfo) -> PoolInfo:
    """Message → PoolInfo."""
    return PoolInfo(
        name=message.name,
        provider=message.provider,
        image=message.image,
        ready=message.ready_count,
        wanted=message.wanted_count,
        min=message.min_count,
        max=message.max_count,
        hits=message.hits_count,
        misses=message.misses_count,
        refilling=message.refilling,
        last_error=message.last_error,
    )


def server_from_pb(message: pb.GetServerInfoResponse) -> ServerInfo:
    """GetServerInfoResponse → ServerInfo."""
    return ServerInfo(
        version=message.version,
        providers=[
            ProviderInfo(
                provider.name,
                provider.available,
                provider.unavailable_reason,
                isolation_from_pb(provider.isolation) if provider.HasField("isolation") else None,
            )
            for provider in message.providers
        ],
        workspaces_limit=message.limits.workspaces_count,
        lease_limit=duration_from_pb(message.limits.lease_duration),
        output_limit_bytes=message.limits.output_limit_bytes,
        message_bytes=message.limits.message_bytes,
        request_window=duration_from_pb(message.limits.request_window),
        pools=[pool_from_pb(pool) for pool in message.pools],
        replica=message.replica,
    )
