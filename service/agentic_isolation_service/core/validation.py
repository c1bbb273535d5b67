"""What is refused before anything is created. Every refusal names the field and the way out.

Field paths are those of the contract, which Python's own names follow: `command.timeout`, `config.working_dir`.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence

from agentic_isolation._wire import check_finite, check_text
from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.interaction import TerminalSize
from agentic_isolation.models import Mount, ResourceLimits, SecurityConfig, WorkspaceConfig
from agentic_isolation.runs import Command

MAX_LEASE = 24 * 3600.0
"""Seconds."""
MIN_LEASE = 1.0
"""Seconds."""
MAX_LINGER = 24 * 3600.0
"""Seconds."""
MAX_TIMEOUT = 1e9
"""Seconds: more than 30 years, and within what every clock on the way can count."""
MAX_KILL_GRACE = 60.0
"""Seconds."""
MAX_OUTPUT_LIMIT = 16 << 20
"""Bytes of each of stdout and stderr that Execute returns at most."""
DEFAULT_OUTPUT_LIMIT = 1 << 20
"""Bytes."""
MAX_STDIN = 1 << 20
"""Bytes of Command.stdin."""
MAX_SECRETS = 128 << 10
"""Bytes of a workspace's secrets together."""
MAX_ENVIRONMENT = 128 << 10
"""Bytes of a workspace's environment: it goes to the guest with every command, and is in the record that it keeps."""
_MAX_WRITTEN = 480 << 10
"""Bytes of environment and labels as JSON: with the rest of the record they must fit into what a guest keeps of it."""
MAX_WORD = (128 << 10) - 1
"""Bytes of one argument or variable, as MAX_ARG_STRLEN of Linux, whose last one ends it."""
MAX_MOUNTS = 16
"""Paths of the engine's host that one workspace has."""
MAX_COMMAND = 512 << 10
"""Bytes of a command's arguments and environment together."""
MAX_PATH = 4096
"""Bytes of a path, as PATH_MAX of Linux."""
_LABEL_NAME = re.compile(r"[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?")
_USER = re.compile(r"[0-9]{1,10}(:[0-9]{1,10})?")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_MAX_LIMIT = 1 << 62
"""Of any limit: room below 2^63, the end of what the kernel counts, for those who round up to pages and blocks."""
_MAX_ID = (1 << 31) - 1
"""Of a user or group, as the Docker Engine has it."""
_SIGNALS = range(1, 65)


def refuse(field: str, message: str) -> InvalidArgumentError:
    """Returns the error for a field."""
    return InvalidArgumentError(message, field=field)


def check_config(config: WorkspaceConfig) -> None:
    """Raises InvalidArgumentError where a workspace is asked for with a field that no provider could accept."""
    check_absolute_path(config.working_dir, "working_dir")
    check_environment(config.environment, "environment")
    if (size := _size_of(config.environment)) > MAX_ENVIRONMENT:
        raise refuse("environment", f"{size} bytes, more than {MAX_ENVIRONMENT}; pass the bulk as a file")
    _check_secrets(config)
    check_labels(config.labels)
    _check_mounts(config.mounts)
    # The record has the labels twice, as those that were asked for and as those of the workspace.
    paths = [[mount.source, mount.target] for mount in config.mounts]
    if (size := len(json.dumps([dict(config.environment), *[dict(config.labels)] * 2, paths]))) > _MAX_WRITTEN:
        raise refuse(
            "environment",
            f"{size} bytes with labels and mounts as JSON, where control characters take six, more than "
            f"{_MAX_WRITTEN}; pass the bulk as a file",
        )
    check_lease(config.lease)
    for seconds, field in ((config.idle_timeout, "idle_timeout"), (config.max_lifetime, "max_lifetime")):
        if seconds is not None:
            check_seconds(seconds, field, 1, MAX_TIMEOUT)
    if config.security is not None:
        _check_security(config.security)
    if config.limits is not None:
        _check_limits(config.limits)


def check_command(command: Command) -> None:
    """Raises InvalidArgumentError where a command has a field that cannot be carried out."""
    if isinstance(command.program, str):
        if not command.program.strip():
            raise refuse("command.shell", "the command is empty; give a line for /bin/sh or a list of arguments")
        _check_word(command.program, "command.shell")
    else:
        if not command.program or not command.program[0]:
            raise refuse("command.argv", "the command is empty; its first argument is the program to run")
        for position, argument in enumerate(command.program):
            _check_word(argument, f"command.argv.args[{position}]")
    if command.cwd is not None:
        check_absolute_path(command.cwd, "command.working_dir")
    check_environment(command.env, "command.environment")
    _check_size(command)
    if command.stdin is not None and len(command.stdin) > MAX_STDIN:
        raise refuse("command.stdin", f"{len(command.stdin)} bytes, more than {MAX_STDIN}; pass it as a file")
    if command.timeout is not None:
        check_seconds(command.timeout, "command.timeout", 0.001, MAX_TIMEOUT)
    check_seconds(command.kill_grace, "command.kill_grace", 0, MAX_KILL_GRACE)
    if command.user is not None:
        _check_user(command.user, "command.user")


def check_absolute_path(path: str, field: str) -> None:
    """Raises InvalidArgumentError where a path is not absolute, holds `..` or NUL, or is too long."""
    check_path(path, field)
    if not path.startswith("/"):
        raise refuse(field, f"{path!r} is relative; give an absolute path such as /workspace/{path}")
    if ".." in path.split("/"):
        raise refuse(field, f"{path!r} holds '..'; give {posixpath.normpath(path)!r} if that is meant")


def check_normal_path(path: str, field: str) -> None:
    """Raises InvalidArgumentError where a path is not absolute, or could be written more shortly."""
    check_absolute_path(path, field)
    if path != (normal := posixpath.normpath("/" + path.lstrip("/"))):
        raise refuse(field, f"{path!r} is not normal; write {normal!r}")


def check_path(path: str, field: str) -> None:
    """Raises InvalidArgumentError where a path is empty, holds NUL or is too long."""
    if not path:
        raise refuse(field, "the path is empty")
    _check_argument(path, field)
    if len(path.encode()) > MAX_PATH:
        raise refuse(field, f"the path is longer than {MAX_PATH} bytes")


def check_environment(environment: Mapping[str, str], field: str) -> None:
    """Raises InvalidArgumentError where a variable cannot be passed on. Never shows values: they may be secrets."""
    for name, value in environment.items():
        if not name or "=" in name or "\0" in check_text(name, field):
            raise refuse(field, f"{name!r} is no name for a variable: it is empty or holds '=' or NUL")
        if "\0" in check_text(value, f'{field}["{name}"]'):
            raise refuse(f'{field}["{name}"]', "the value holds NUL, which no variable can")
        if (size := len(f"{name}={value}".encode())) > MAX_WORD:
            raise refuse(field, f"{name[:64]!r} takes {size} bytes with its name, more than {MAX_WORD}; use a file")


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises InvalidArgumentError where there are too many labels or one of them is malformed."""
    if len(labels) > 64:
        raise refuse("labels", f"{len(labels)} labels, more than 64")
    for name, value in labels.items():
        check_text(value, f'labels["{name}"]')
        if not _LABEL_NAME.fullmatch(name):
            raise refuse("labels", f"{name!r} is no label name: use at most 63 of a-z, 0-9, '.', '_', '/' and '-'")
        if len(value) > 256:
            raise refuse(f'labels["{name}"]', "the value is longer than 256 characters")


def check_lease(seconds: float, field: str = "lease_duration") -> None:
    """Raises InvalidArgumentError where a lease is out of range."""
    check_seconds(seconds, field, MIN_LEASE, MAX_LEASE)


def check_linger(seconds: float) -> None:
    """Raises InvalidArgumentError where a linger is out of range."""
    check_seconds(seconds, "linger", 0, MAX_LINGER)


def check_output_limit(limit: int) -> None:
    """Raises InvalidArgumentError where an output limit is out of range."""
    if not 0 <= limit <= MAX_OUTPUT_LIMIT:
        raise refuse("output_limit_bytes", f"{limit} is not from 0 to {MAX_OUTPUT_LIMIT}; stream larger outputs")


def check_terminal_size(size: TerminalSize, field: str) -> None:
    """Raises InvalidArgumentError where a terminal cannot be of a size."""
    for name, value in (("columns", size.columns), ("rows", size.rows)):
        if not 1 <= value <= 65_535:
            raise refuse(f"{field}.{name}", f"{value} is not from 1 to 65535")


def check_signal(number: int) -> None:
    """Raises InvalidArgumentError where there is no signal of that number."""
    if number not in _SIGNALS:
        raise refuse("signal", f"{number} is no signal; they are numbered from 1 to 64")


def check_request_id(request_id: str) -> None:
    """Raises InvalidArgumentError where a request id is not printable ASCII of 1 to 128 characters."""
    if not _REQUEST_ID.fullmatch(request_id):
        raise refuse("request_id", "it must have 1 to 128 printable ASCII characters, no spaces; a UUID is fine")


def check_seconds(seconds: float, field: str, least: float, most: float) -> None:
    """Raises InvalidArgumentError where a time is not between two bounds, both included."""
    if not least <= check_finite(seconds, field) <= most:
        raise refuse(field, f"{seconds!r} s is out of range; it must be from {least:g} s to {most:g} s")


def _check_secrets(config: WorkspaceConfig) -> None:
    check_environment(config.secrets, "secrets")
    for name in config.secrets.keys() & config.environment.keys():
        raise refuse(
            f'secrets["{name}"]', "it is in `environment` too, where it would be no secret; leave it out there"
        )
    size = sum(len((name + value).encode()) for name, value in config.secrets.items())
    if size > MAX_SECRETS:
        raise refuse("secrets", f"{size} bytes, more than {MAX_SECRETS}; pass the bulk as a file")


def _check_mounts(mounts: Sequence[Mount]) -> None:
    if len(mounts) > MAX_MOUNTS:
        raise refuse("mounts", f"{len(mounts)}, more than {MAX_MOUNTS}; mount a directory that has them all")
    targets: list[str] = []
    for position, mount in enumerate(mounts):
        check_normal_path(mount.source, f"mounts[{position}].source")
        check_normal_path(mount.target, f"mounts[{position}].target")
        if (other := next((other for other in targets if is_within(mount.target, other)), None)) is None:
            other = next((other for other in targets if is_within(other, mount.target)), None)
        if other is not None:
            raise refuse(
                f"mounts[{position}].target", f"{mount.target!r} and {other!r} are in each other's way; put them apart"
            )
        targets.append(mount.target)


def is_within(path: str, directory: str) -> bool:
    """Returns whether a normal path is a directory or lies in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _size_of(environment: Mapping[str, str]) -> int:
    return sum(len((name + value).encode()) + 2 for name, value in environment.items())


def _check_size(command: Command) -> None:
    program = [command.program] if isinstance(command.program, str) else command.program
    size = sum(len(argument.encode()) + 1 for argument in program)
    size += _size_of(command.env)
    if size > MAX_COMMAND:
        raise refuse("command", f"arguments and environment take {size} bytes, more than {MAX_COMMAND}; use a file")


def _check_security(security: SecurityConfig) -> None:
    if not 16 <= security.pids_limit <= 32768:
        raise refuse("security.pids_limit", f"{security.pids_limit} is not from 16 to 32768")
    if security.user is not None:
        _check_user(security.user, "security.user")


def _check_limits(limits: ResourceLimits) -> None:
    for field, value, least in (
        ("limits.cpu_millis", limits.cpu_millis, 10),
        ("limits.memory_bytes", limits.memory_bytes, 16 << 20),
        ("limits.disk_bytes", limits.disk_bytes, 1 << 20),
        ("limits.open_files_count", limits.open_files, 64),
    ):
        if value is not None and not least <= value <= _MAX_LIMIT:
            raise refuse(field, f"{value} is not from {least}, the least that works, to {_MAX_LIMIT}")


def _check_user(user: str, field: str) -> None:
    if not _USER.fullmatch(user):
        raise refuse(field, f"{user!r} is not UID or UID:GID in numbers, for example 1000:1000")
    if any(int(number) > _MAX_ID for number in user.split(":")):
        raise refuse(field, f"{user!r} has a number above {_MAX_ID}, the last one that a user or group can have")


def _check_word(text: str, field: str) -> None:
    _check_argument(text, field)
    if (size := len(text.encode())) > MAX_WORD:
        raise refuse(field, f"{size} bytes, more than the {MAX_WORD} of any argument; pass it as stdin or a file")


def _check_argument(text: str, field: str) -> None:
    if "\0" in check_text(text, field):
        raise refuse(field, "it holds a NUL character, which no argument or path can")
