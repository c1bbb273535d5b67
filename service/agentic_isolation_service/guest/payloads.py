"""JSON payloads of the guest ↔ models. Every member is checked: the guest is not trusted."""

from __future__ import annotations

import datetime as dt
import re
from typing import TypeVar

from agentic_isolation.changes import FileChange, FileChangeType, WatchOverflow
from agentic_isolation.interaction import InputProgress, ProcessInfo
from agentic_isolation.models import FileInfo, FileType, Isolation, ResourceUsage
from agentic_isolation.runs import CapturedOutput, Termination, TerminationCause
from agentic_isolation.transfer import TransferSummary
from agentic_isolation_service.guest.frames import ProtocolError

_T = TypeVar("_T", int, str, bool)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MAX_INT = (1 << 63) - 1
_MAX_COUNT = (1 << 32) - 1
_MAX_PROCESSES = 4096
_MAX_NS = 253_402_300_799 * 10**9  # the year 9999, where datetime ends
_CAUSES = {
    "exited": TerminationCause.EXITED,
    "signaled": TerminationCause.SIGNALED,
    "timeout": TerminationCause.TIMEOUT,
    "killed": TerminationCause.KILLED,
    "out_of_memory": TerminationCause.OUT_OF_MEMORY,
    "pids_limit": TerminationCause.PIDS_LIMIT,
}
_PROCESS_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MASK = re.compile(r"[0-9a-fA-F]{1,16}")
_FILE_TYPES = {kind.value: kind for kind in FileType}
_CHANGES = {kind.value: kind for kind in FileChangeType}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SECCOMP_MODES = {0: "disabled", 1: "strict", 2: "filter"}
# Bit numbers of linux/capability.h.
_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()


def member(value: dict[str, object], name: str, kind: type[_T], default: _T | None = None) -> _T:
    """Returns a member of a payload, which must be of the type; numbers must be from 0 to 2^63-1.

    Raises:
        ProtocolError: It is of another type, out of range, or missing without a default.
    """
    found = value.get(name, default)
    if type(found) is not kind or (kind is int and not 0 <= int(found) <= _MAX_INT):
        raise ProtocolError(f"malformed member {name!r} from the guest")
    if isinstance(found, str) and not _is_unicode(found):
        raise ProtocolError(f"malformed member {name!r} from the guest")
    return found


def _is_unicode(text: str) -> bool:
    """Whether the text has no lone surrogates, which JSON can smuggle in and protobuf refuses."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def timestamp(value: dict[str, object], name: str) -> dt.datetime:
    """Returns a member of nanoseconds since 1970 as a time."""
    return _EPOCH + dt.timedelta(microseconds=min(member(value, name, int), _MAX_NS) // 1000)


def _milliseconds(microseconds: int) -> float:
    """Microseconds → milliseconds, no more than a Duration holds."""
    return min(microseconds, _MAX_NS // 1000) / 1000


def termination(value: dict[str, object]) -> Termination:
    """Returns how a process ended, from a RESULT of `run` or `attach`."""
    cause = _CAUSES.get(member(value, "cause", str))
    exit_code = member(value, "exit_code", int) if "exit_code" in value else None
    signal = member(value, "signal", int) if "signal" in value else None
    if cause is None or (exit_code is None) == (signal is None) or (exit_code or 0) > 255 or (signal or 0) > 64:
        raise ProtocolError("malformed termination from the guest")
    return Termination(
        cause=cause,
        exit_code=exit_code,
        signal=signal,
        started_at=timestamp(value, "started_unix_ns"),
        duration_ms=_milliseconds(member(value, "duration_us", int)),
        cpu_ms=_milliseconds(member(value, "cpu_us", int, 0)),
        peak_memory_bytes=member(value, "peak_memory_bytes", int, 0),
        survivors=min(member(value, "survivors", int, 0), _MAX_COUNT),
    )


def input_progress(value: dict[str, object]) -> InputProgress:
    """Returns how far a process's input is, from an EVENT or the RESULT of `input`."""
    return InputProgress(member(value, "offset", int), member(value, "ended", bool))


def processes(value: dict[str, object]) -> list[ProcessInfo]:
    """Returns the processes that a RESULT of `ps` lists; what an earlier version leaves out is 0 or False."""
    listed = value.get("processes")
    if not isinstance(listed, list) or len(listed) > _MAX_PROCESSES:
        raise ProtocolError("malformed list of processes from the guest")
    return [_process(entry) for entry in listed]


def _process(value: object) -> ProcessInfo:
    if not isinstance(value, dict):
        raise ProtocolError("malformed process from the guest")
    process_id = member(value, "process_id", str)
    if not _PROCESS_ID.fullmatch(process_id):
        raise ProtocolError("malformed member 'process_id' from the guest")
    args = value.get("argv")
    if not isinstance(args, list):
        raise ProtocolError("malformed member 'argv' from the guest")
    result = value.get("result")
    if result is not None and not isinstance(result, dict):
        raise ProtocolError("malformed member 'result' from the guest")
    return ProcessInfo(
        id=process_id,
        args=[member({"argv": argument}, "argv", str) for argument in args],
        started_at=timestamp(value, "started_unix_ns"),
        cpu_seconds=_milliseconds(member(value, "cpu_us", int)) / 1000,
        memory_bytes=member(value, "memory_bytes", int),
        processes=min(member(value, "processes", int, 0), _MAX_COUNT),
        output_bytes=member(value, "output_bytes", int, 0),
        terminal=member(value, "terminal", bool, False),
        detached=member(value, "detached", bool, False),
        termination=None if result is None else termination(result),
    )


def captured(value: dict[str, object], source: str, kept: bytes) -> CapturedOutput:
    """Returns one source's captured output, from a RESULT and the bytes that came before it."""
    counts = value.get(source)
    if not isinstance(counts, dict):
        raise ProtocolError(f"malformed member {source!r} from the guest")
    omitted = member(counts, "omitted", int)
    if omitted == 0:
        return CapturedOutput(head=kept, total_bytes=len(kept))
    cut = member(counts, "head", int)
    return CapturedOutput(
        head=kept[:cut], tail=kept[cut:], omitted_bytes=omitted, total_bytes=member(counts, "total", int)
    )


def file_info(value: object) -> FileInfo:
    """Returns a file entry."""
    if not isinstance(value, dict):
        raise ProtocolError("malformed file entry from the guest")
    kind = _FILE_TYPES.get(member(value, "type", str))
    if kind is None:
        raise ProtocolError("malformed file entry from the guest")
    return FileInfo(
        path=member(value, "path", str),
        name=member(value, "name", str),
        type=kind,
        size_bytes=member(value, "size", int),
        mode=member(value, "mode", int) & 0o7777,
        modified_at=timestamp(value, "mtime_unix_ns"),
        symlink_target=member(value, "target", str, ""),
    )


def digest(value: dict[str, object]) -> bytes:
    """Returns a RESULT's SHA-256; empty where it has none."""
    text = member(value, "sha256", str, "")
    if text and not _SHA256.fullmatch(text):
        raise ProtocolError("malformed member 'sha256' from the guest")
    return bytes.fromhex(text)


def archive_summary(value: dict[str, object]) -> TransferSummary:
    """Returns what a RESULT of `pack` or `unpack` says that an archive held."""
    return TransferSummary(
        files=member(value, "files", int),
        directories=member(value, "directories", int),
        symlinks=member(value, "symlinks", int),
        skipped=member(value, "skipped", int, 0),
        content_bytes=member(value, "bytes", int),
    )


def change(value: dict[str, object]) -> FileChange | WatchOverflow:
    """Returns what a line of `watch` tells."""
    word = member(value, "change", str)
    if word == "overflow":
        return WatchOverflow()
    kind = _CHANGES.get(word)
    if kind is None:
        raise ProtocolError("malformed change from the guest")
    path, from_path = member(value, "path", str), member(value, "from", str, "")
    return FileChange(kind, path, from_path, member(value, "directory", bool, False))


def usage(value: dict[str, object]) -> ResourceUsage:
    """Returns what a RESULT of `usage` says; what it leaves out is not known."""

    def known(name: str) -> int | None:
        return member(value, name, int) if name in value else None

    cpu, pids = known("cpu_us"), known("pids")
    return ResourceUsage(
        memory_bytes=known("memory_bytes"),
        cpu_seconds=None if cpu is None else _milliseconds(cpu) / 1000,
        pids=None if pids is None else min(pids, _MAX_COUNT),
        disk_bytes=known("disk_bytes"),
    )


def isolation(value: dict[str, object], runtime: str) -> Isolation:
    """Returns what a RESULT of `info` says that commands have."""
    capabilities = member(value, "capabilities", str)
    if not _MASK.fullmatch(capabilities):
        raise ProtocolError("malformed member 'capabilities' from the guest")
    limits = value.get("limits", {})
    if not isinstance(limits, dict):
        raise ProtocolError("malformed member 'limits' from the guest")
    mask = int(capabilities, 16)
    return Isolation(
        runtime=runtime,
        user=f"{member(value, 'uid', int)}:{member(value, 'gid', int)}",
        capabilities=[f"CAP_{name}" for bit, name in enumerate(_CAPABILITIES) if mask >> bit & 1],
        no_new_privileges=member(value, "no_new_privs", bool),
        seccomp=_SECCOMP_MODES.get(member(value, "seccomp", int), ""),
        read_only_root=member(value, "root_read_only", bool),
        kernel=member(value, "kernel", str)[:128],
        cpu_millis=_limit(limits, "cpu_millis", _MAX_COUNT),
        memory_bytes=_limit(limits, "memory_bytes"),
        disk_bytes=_limit(limits, "disk_bytes"),
        open_files=_limit(limits, "open_files", _MAX_COUNT),
        pids_limit=min(
            (found for name in ("pids", "processes") if (found := _limit(limits, name, _MAX_COUNT))), default=None
        ),
    )


def in_gvisor(value: dict[str, object]) -> bool:
    """Returns whether a RESULT of `info` says that the kernel is gVisor's."""
    return member(value, "gvisor", bool, False)


def record(value: dict[str, object]) -> str:
    """Returns what a RESULT of `info` says that the guest was given to remember; empty: nothing."""
    return member(value, "record", str, "")


def lease_left(value: dict[str, object]) -> float | None:
    """Returns the seconds that a RESULT of `info` or `lease` says are left; None: an older guest does not say."""
    return member(value, "lease_left_ms", int) / 1000 if "lease_left_ms" in value else None


def _limit(limits: dict[str, object], name: str, most: int = _MAX_INT) -> int | None:
    """Returns a limit that commands are held to, as the guest has found it inside; None where it has found none."""
    return min(member(limits, name, int), most) if name in limits else None
