"""A table of requests that are refused before anything is done. RPCs are named by the type of their request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.wire import argv, seconds, shell

HERE = "HERE"
"""Stands for the id of a workspace that is there."""
MISSING = "ws-aaaaaaaaaaaaaaaaaaaa"
"""The id of a workspace that is not there."""
HOUR = 3600
TWO_SIGNS = Duration(seconds=60, nanos=-1)
"""No Duration: 59.999999999 s are written otherwise."""
UNKNOWN: Any = 99
"""The number of no NetworkMode."""


@dataclass(frozen=True, slots=True)
class BadRequest:
    """A request, and how it is refused.

    Args:
        name: What is bad about it.
        request: It, aimed at HERE.
        field: The field at fault.
        words: What the message says.
    """

    name: str
    request: Any
    field: str | None
    words: tuple[str, ...] = ()
    code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT
    reason: str = "INVALID_ARGUMENT"


def create(name: str, field: str, *words: str, **fields: Any) -> BadRequest:
    return BadRequest("create-" + name, pb.CreateWorkspaceRequest(**{"provider": "local"} | fields), field, words)


def cannot_isolate(name: str, field: str, **fields: Any) -> BadRequest:
    request = pb.CreateWorkspaceRequest(provider="local", **fields)
    code = grpc.StatusCode.FAILED_PRECONDITION
    return BadRequest("local-" + name, request, field, ("docker",), code, "ISOLATION_UNAVAILABLE")


def command(name: str, field: str, command: pb.Command | None) -> list[BadRequest]:
    execute = pb.ExecuteRequest(workspace_id=HERE, command=command)
    stream = pb.StreamRequest(workspace_id=HERE, start=pb.ProcessStart(command=command))
    attach = pb.AttachRequest(open=pb.AttachOpen(workspace_id=HERE, start=pb.ProcessStart(command=command)))
    requests = {"execute": execute, "stream": stream, "attach": attach}
    return [BadRequest(f"{rpc}-{name}", request, field) for rpc, request in requests.items()]


def execute(name: str, field: str, **fields: Any) -> BadRequest:
    request = pb.ExecuteRequest(workspace_id=HERE, command=shell("touch was-here"), **fields)
    return BadRequest("execute-" + name, request, field)


def stream(name: str, field: str, **fields: Any) -> BadRequest:
    request = pb.StreamRequest(workspace_id=HERE, **fields)
    if "resume" not in fields and name != "without-target":
        request.start.command.shell = "touch was-here"
    return BadRequest("stream-" + name, request, field)


def attach(name: str, field: str, **fields: Any) -> BadRequest:
    opening = pb.AttachOpen(workspace_id=HERE, **fields)
    if "resume" not in fields and name != "without-target":
        opening.start.command.MergeFrom(shell("touch was-here"))
    return BadRequest("attach-" + name, pb.AttachRequest(open=opening), field)


def unpack(**fields: Any) -> pb.WriteArchiveRequest:
    return pb.WriteArchiveRequest(header=pb.WriteArchiveHeader(workspace_id=HERE, **fields))


def copied(**fields: Any) -> pb.CopyFileRequest:
    return pb.CopyFileRequest(workspace_id=HERE, **fields)


def pack(**fields: Any) -> pb.ReadArchiveRequest:
    return pb.ReadArchiveRequest(workspace_id=HERE, **fields)


def signalled(**fields: Any) -> pb.SignalProcessRequest:
    return pb.SignalProcessRequest(workspace_id=HERE, **fields)


def other(name: str, field: str | None, request: Any, reason: str = "INVALID_ARGUMENT") -> BadRequest:
    return BadRequest(name, request, field, reason=reason)


def upload(**fields: Any) -> pb.WriteFileRequest:
    return pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id=HERE, **fields))


def execute_in(working_dir: str) -> pb.ExecuteRequest:
    return pb.ExecuteRequest(workspace_id=HERE, command=shell("touch was-here", working_dir=working_dir))


CREATE = [
    create("unknown-provider", "provider", "'podman'", "'docker'", "'local'", provider="podman"),
    create("no-provider", "provider", "'docker'", "'local'", provider=""),
    create("local-image", "image", image="python:3.12-slim"),
    create("relative-working-dir", "working_dir", "/workspace/src", working_dir="src"),
    create("dots-in-working-dir", "working_dir", working_dir="/workspace/../etc"),
    create("nul-in-working-dir", "working_dir", working_dir="/work\0space"),
    create("long-working-dir", "working_dir", working_dir="/" + "x" * 4096),
    create("nameless-variable", "environment", environment={"": "value"}),
    create("equals-in-variable", "environment", environment={"A=B": "value"}),
    create("nul-in-variable", "environment", environment={"A\0": "value"}),
    create("nul-in-value", 'environment["A"]', environment={"A": "b\0"}),
    create("large-variable", "environment", "'A'", "131071", environment={"A": "x" * 131070}),
    create("large-environment", "environment", "131072", environment={"A": "x" * 65536, "B": "x" * 65531}),
    create("label-in-capitals", "labels", "'Team'", labels={"Team": "x"}),
    create("label-that-ends-in-dash", "labels", labels={"team-": "x"}),
    create("nameless-label", "labels", labels={"": "x"}),
    create("long-label", "labels", labels={"a" * 64: "x"}),
    create("long-label-value", 'labels["team"]', labels={"team": "x" * 257}),
    create("many-labels", "labels", "65", labels={f"label{number}": "" for number in range(65)}),
    create("zero-lease", "lease_duration", lease_duration=seconds(0)),
    create("short-lease", "lease_duration", lease_duration=seconds(0.999)),
    create("long-lease", "lease_duration", lease_duration=seconds(24 * HOUR + 1)),
    create("negative-lease", "lease_duration", lease_duration=seconds(-60)),
    create("lease-of-many-nanos", "lease_duration", "10^9", lease_duration=Duration(seconds=60, nanos=10**9)),
    create("lease-of-two-signs", "lease_duration", "sign", lease_duration=TWO_SIGNS),
    create("idle-of-two-signs", "idle_timeout", idle_timeout=TWO_SIGNS),
    create("lifetime-of-many-nanos", "max_lifetime", max_lifetime=Duration(nanos=2 * 10**9)),
    create("space-in-request-id", "request_id", request_id="a b"),
    create("long-request-id", "request_id", request_id="a" * 129),
    create("few-pids", "security.pids_limit", security=pb.SecurityConfig(pids_limit=15)),
    create("many-pids", "security.pids_limit", security=pb.SecurityConfig(pids_limit=32769)),
    create("user-by-name", "security.user", security=pb.SecurityConfig(user="root")),
    create("large-user", "security.user", "2147483647", security=pb.SecurityConfig(user=str(1 << 31))),
    create("large-group", "security.user", "2147483647", security=pb.SecurityConfig(user=f"1000:{1 << 31}")),
    create("little-cpu", "limits.cpu_millis", limits=pb.ResourceLimits(cpu_millis=9)),
    create("little-memory", "limits.memory_bytes", limits=pb.ResourceLimits(memory_bytes=(16 << 20) - 1)),
    create("endless-memory", "limits.memory_bytes", limits=pb.ResourceLimits(memory_bytes=(1 << 62) + 1)),
    create("little-disk", "limits.disk_bytes", limits=pb.ResourceLimits(disk_bytes=1)),
    create("unwritable-environment", "environment", "JSON", environment={"A": "\1" * 65536, "B": "\1" * 65000}),
    create("secret-in-environment", 'secrets["A"]', secrets={"A": "x"}, environment={"A": "y"}),
    create("nameless-secret", "secrets", secrets={"": "x"}),
    create("nul-in-secret", 'secrets["A"]', secrets={"A": "\0"}),
    create("large-secrets", "secrets", secrets={"A": "x" * (128 << 10)}),
    create("endless-disk", "limits.disk_bytes", limits=pb.ResourceLimits(disk_bytes=(1 << 62) + 1)),
    create("unknown-network", "limits.network", "99", limits=pb.ResourceLimits(network=UNKNOWN)),
    create("few-open-files", "limits.open_files_count", limits=pb.ResourceLimits(open_files_count=3)),
]

ISOLATION = [
    cannot_isolate("security", "security", security=pb.SecurityConfig(cap_drop_all=True)),
    cannot_isolate("empty-security", "security", security=pb.SecurityConfig()),
    cannot_isolate("cpu-limit", "limits", limits=pb.ResourceLimits(cpu_millis=1000)),
    cannot_isolate("memory-limit", "limits", limits=pb.ResourceLimits(memory_bytes=1 << 30)),
    cannot_isolate("disk-limit", "limits", limits=pb.ResourceLimits(disk_bytes=1 << 30)),
    cannot_isolate("open-files-limit", "limits", limits=pb.ResourceLimits(open_files_count=100)),
    cannot_isolate("no-network", "limits", limits=pb.ResourceLimits(network=pb.NETWORK_MODE_NONE)),
]

COMMANDS = [
    *command("without-command", "command.argv", None),
    *command("without-program", "command.argv", pb.Command()),
    *command("without-arguments", "command.argv", argv()),
    *command("empty-program", "command.argv", argv("")),
    *command("empty-line", "command.shell", shell("")),
    *command("blank-line", "command.shell", shell(" \n")),
    *command("nul-in-line", "command.shell", shell("touch was-here\0")),
    *command("nul-in-argument", "command.argv.args[1]", argv("touch", "was\0here")),
    *command("zero-timeout", "command.timeout", shell("touch was-here", timeout=seconds(0))),
    *command("negative-timeout", "command.timeout", shell("touch was-here", timeout=seconds(-1))),
    *command("short-timeout", "command.timeout", shell("touch was-here", timeout=seconds(0.0009))),
    *command("endless-timeout", "command.timeout", shell("touch was-here", timeout=seconds(1e9 + 1))),
    *command("timeout-of-many-nanos", "command.timeout", shell("touch was-here", timeout=Duration(nanos=2 * 10**9))),
    *command("grace-of-two-signs", "command.kill_grace", shell("touch was-here", kill_grace=TWO_SIGNS)),
    *command("negative-grace", "command.kill_grace", shell("touch was-here", kill_grace=seconds(-1))),
    *command("long-grace", "command.kill_grace", shell("touch was-here", kill_grace=seconds(61))),
    *command("relative-working-dir", "command.working_dir", shell("touch was-here", working_dir="src")),
    *command("dots-in-working-dir", "command.working_dir", shell("touch was-here", working_dir="/workspace/../..")),
    *command("nul-in-value", 'command.environment["A"]', shell("touch was-here", environment={"A": "\0"})),
    *command("nameless-variable", "command.environment", shell("touch was-here", environment={"": "x"})),
    *command("large-stdin", "command.stdin", shell("touch was-here", stdin=bytes((1 << 20) + 1))),
    *command("large-line", "command.shell", shell("touch was-here #" + "x" * 131071)),
    *command("large-argument", "command.argv.args[2]", argv("touch", "was-here", "x" * 131072)),
    *command("large-variable", "command.environment", shell("touch was-here", environment={"A": "x" * 131070})),
    *command("large-arguments", "command", argv("touch", "was-here", *["x" * 1024] * 512)),
    *command("user-by-name", "command.user", shell("touch was-here", user="root")),
    *command("large-user", "command.user", shell("touch was-here", user=str(1 << 31))),
]

RUNS = [
    execute("large-output-limit", "output_limit_bytes", output_limit_bytes=(16 << 20) + 1),
    execute("negative-linger", "linger", linger=seconds(-1)),
    execute("linger-of-two-signs", "linger", linger=TWO_SIGNS),
    execute("long-linger", "linger", linger=seconds(24 * HOUR + 1)),
    execute("space-in-request-id", "request_id", request_id=" "),
    other("execute-escapes", "command.working_dir", execute_in("/etc"), "PATH_ESCAPES"),
    stream("negative-linger", "linger", linger=seconds(-1)),
    stream("linger-of-two-signs", "linger", linger=TWO_SIGNS),
    stream("keepalive-of-two-signs", "keepalive_interval", keepalive_interval=TWO_SIGNS),
    stream("long-linger", "linger", linger=seconds(24 * HOUR + 1)),
    stream("long-request-id", "request_id", request_id="é"),
    stream("short-keepalive", "keepalive_interval", keepalive_interval=seconds(0.5)),
    stream("negative-keepalive", "keepalive_interval", keepalive_interval=seconds(-1)),
    stream("without-target", "target"),
    stream("resume-without-process", "resume.process_id", resume=pb.ProcessResume(offset=1)),
]

TOO_WIDE, TOO_FLAT = pb.TerminalSize(columns=65536, rows=24), pb.TerminalSize(columns=80, rows=0)

INTERACTIONS = [
    attach("without-target", "open.target"),
    attach("resume-without-process", "open.resume.process_id", resume=pb.ProcessResume(offset=1)),
    attach("too-wide", "open.terminal.columns", terminal=TOO_WIDE),
    attach("too-flat", "open.terminal.rows", terminal=TOO_FLAT),
    attach("start-reading-to-take-input", "open.take_input", read_only=True, take_input=True),
    attach(
        "reading-to-take-input",
        "open.take_input",
        resume=pb.ProcessResume(process_id="p-1"),
        read_only=True,
        take_input=True,
    ),
    attach("linger-of-two-signs", "linger", linger=TWO_SIGNS),
    attach("negative-linger", "linger", linger=seconds(-1)),
    attach("space-in-request-id", "request_id", request_id=" "),
    attach("short-keepalive", "open.keepalive_interval", keepalive_interval=seconds(0.5)),
    *command("stdin-in-attach", "command.stdin", shell("touch was-here", stdin=b"x"))[2:],
    other("attach-without-opening", "open", pb.AttachRequest(stdin=b"x")),
    other("attach-empty", "open", pb.AttachRequest()),
    other("wait-for-nobody", "process_id", pb.WaitProcessRequest(workspace_id=HERE)),
    other("signal-zero", "signal", signalled(process_id="p", signal=0)),
    other("signal-65", "signal", signalled(process_id="p", signal=65)),
    other("signal-nobody", "process_id", signalled(signal=9)),
    other("signal-both", "process_id", signalled(signal=9, process_id="p", request_id="r")),
    other("signal-tree-and-foreground", "foreground", signalled(signal=9, process_id="p", tree=True, foreground=True)),
]

LISTS = [
    other("list-negative-page", "page_size", pb.ListWorkspacesRequest(page_size=-1)),
    other("list-large-page", "page_size", pb.ListWorkspacesRequest(page_size=1001)),
    other("list-foreign-token", "page_token", pb.ListWorkspacesRequest(page_token="next")),
    other("list-token-in-unicode", "page_token", pb.ListWorkspacesRequest(page_token="é")),
    other("list-token-of-other-content", "page_token", pb.ListWorkspacesRequest(page_token="YSBiIGM=")),
    other(
        "renew-of-two-signs", "lease_duration", pb.RenewWorkspaceRequest(workspace_id=HERE, lease_duration=TWO_SIGNS)
    ),
    other("renew-short", "lease_duration", pb.RenewWorkspaceRequest(workspace_id=HERE, lease_duration=seconds(0.5))),
    other(
        "renew-long", "lease_duration", pb.RenewWorkspaceRequest(workspace_id=HERE, lease_duration=seconds(25 * HOUR))
    ),
]

FILES = [
    other("upload-without-path", "path", upload()),
    other("upload-nul-in-path", "path", upload(path="a\0b")),
    other("upload-mode", "mode", upload(path="was-here", mode=0o1000)),
    other("upload-escapes", "path", upload(path="../was-here"), "PATH_ESCAPES"),
    other("read-without-path", "path", pb.ReadFileRequest(workspace_id=HERE)),
    other("read-escapes", "path", pb.ReadFileRequest(workspace_id=HERE, path="/etc/passwd"), "PATH_ESCAPES"),
    other("stat-without-path", "path", pb.StatFileRequest(workspace_id=HERE)),
    other("stat-escapes", "path", pb.StatFileRequest(workspace_id=HERE, path="../.."), "PATH_ESCAPES"),
    other("stat-long-path", "path", pb.StatFileRequest(workspace_id=HERE, path="x" * 4097)),
    other("directory-negative-page", "page_size", pb.ListDirectoryRequest(workspace_id=HERE, page_size=-1)),
    other("directory-large-page", "page_size", pb.ListDirectoryRequest(workspace_id=HERE, page_size=1001)),
    *(
        other(f"directory-{name}", "page_token", pb.ListDirectoryRequest(workspace_id=HERE, page_token=token))
        for name, token in (("foreign-token", "x"), ("token-in-unicode", "é"), ("token-of-other-content", "YSBiIGM="))
    ),
    other("mkdir-without-path", "path", pb.MakeDirectoryRequest(workspace_id=HERE)),
    other("mkdir-mode", "mode", pb.MakeDirectoryRequest(workspace_id=HERE, path="was-here", mode=0o2000)),
    other("list-too-deep", "depth", pb.ListDirectoryRequest(workspace_id=HERE, depth=1001)),
    other(
        "move-from-outside",
        "source_path",
        pb.MoveFileRequest(workspace_id=HERE, source_path="../a", destination_path="b"),
        "PATH_ESCAPES",
    ),
    other(
        "move-to-outside",
        "destination_path",
        pb.MoveFileRequest(workspace_id=HERE, source_path="a", destination_path="../b"),
        "PATH_ESCAPES",
    ),
    other("copy-from-nowhere", "source_path", copied(destination_path="x")),
    other("copy-to-nowhere", "destination_path", copied(source_path="x")),
    other("copy-from-outside", "source_path", copied(source_path="/etc", destination_path="b"), "PATH_ESCAPES"),
    other("copy-to-outside", "destination_path", copied(source_path=".", destination_path="../b"), "PATH_ESCAPES"),
    other("chmod-without-path", "path", pb.ChangeFileModeRequest(workspace_id=HERE, mode=0o600)),
    other("chmod-without-mode", "mode", pb.ChangeFileModeRequest(workspace_id=HERE, path="x")),
    other("chmod-setuid", "mode", pb.ChangeFileModeRequest(workspace_id=HERE, path="x", mode=0o4755)),
    other("chmod-outside", "path", pb.ChangeFileModeRequest(workspace_id=HERE, path="/etc", mode=0), "PATH_ESCAPES"),
    other("unpack-outside", "path", unpack(path="../was-here"), "PATH_ESCAPES"),
    other("unpack-without-header", "header", pb.WriteArchiveRequest(data=b"x")),
    other("pack-outside", "path", pack(path="/etc"), "PATH_ESCAPES"),
    other("pack-many-patterns", "ignore_patterns", pack(ignore_patterns=["x"] * 1001)),
    other("pack-bad-pattern", "ignore_patterns[1]", pack(ignore_patterns=["x", "!"])),
    other("watch-outside", "path", pb.WatchDirectoryRequest(workspace_id=HERE, path="/etc"), "PATH_ESCAPES"),
    other("pull-from-nobody", "provider", pb.PullImageRequest(image="x")),
    other("pull-local", "provider", pb.PullImageRequest(provider="local")),
    other("move-from-nowhere", "source_path", pb.MoveFileRequest(workspace_id=HERE, destination_path="x")),
    other("move-to-nowhere", "destination_path", pb.MoveFileRequest(workspace_id=HERE, source_path="x")),
    other("remove-without-path", "path", pb.RemoveFileRequest(workspace_id=HERE)),
    other("directory-escapes", "path", pb.ListDirectoryRequest(workspace_id=HERE, path=".."), "PATH_ESCAPES"),
    other("mkdir-escapes", "path", pb.MakeDirectoryRequest(workspace_id=HERE, path="../was-here"), "PATH_ESCAPES"),
    other("remove-escapes", "path", pb.RemoveFileRequest(workspace_id=HERE, path="../tmp"), "PATH_ESCAPES"),
]

BAD_REQUESTS = {
    "create": CREATE,
    "isolation": ISOLATION,
    "command": COMMANDS,
    "run": RUNS,
    "interaction": INTERACTIONS,
    "list": LISTS,
    "file": FILES,
}
"""By what they are about."""

EVERY_WORKSPACE_RPC = [
    pb.GetWorkspaceRequest(workspace_id=HERE),
    pb.RenewWorkspaceRequest(workspace_id=HERE),
    pb.DestroyWorkspaceRequest(workspace_id=HERE),
    pb.ExecuteRequest(workspace_id=HERE, command=shell("true")),
    pb.StreamRequest(workspace_id=HERE, start=pb.ProcessStart(command=shell("true"))),
    pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id=HERE, path="file")),
    pb.ReadFileRequest(workspace_id=HERE, path="file"),
    pb.StatFileRequest(workspace_id=HERE, path="file"),
    pb.ListDirectoryRequest(workspace_id=HERE),
    pb.MakeDirectoryRequest(workspace_id=HERE, path="directory"),
    pb.MoveFileRequest(workspace_id=HERE, source_path="a", destination_path="b"),
    pb.RemoveFileRequest(workspace_id=HERE, path="file"),
    pb.AttachRequest(open=pb.AttachOpen(workspace_id=HERE, start=pb.ProcessStart(command=shell("true")))),
    pb.ListProcessesRequest(workspace_id=HERE),
    pb.WaitProcessRequest(workspace_id=HERE, process_id="p"),
    pb.SignalProcessRequest(workspace_id=HERE, process_id="p", signal=9),
    pb.CopyFileRequest(workspace_id=HERE, source_path="a", destination_path="b"),
    pb.ChangeFileModeRequest(workspace_id=HERE, path="file", mode=0o600),
    pb.WriteArchiveRequest(header=pb.WriteArchiveHeader(workspace_id=HERE)),
    pb.ReadArchiveRequest(workspace_id=HERE),
    pb.WatchDirectoryRequest(workspace_id=HERE),
]
