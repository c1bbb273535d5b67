"""What is refused before anything is created: by its field, with a way out, and only beyond the border."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from agentic_isolation import InvalidArgumentError
from agentic_isolation import _convert as convert
from agentic_isolation import _convert_runs as run_convert
from agentic_isolation.models import Mount, ResourceLimits, SecurityConfig, WorkspaceConfig
from agentic_isolation.runs import Command
from agentic_isolation_service.core import validation
from agentic_isolation_service.core.validation import (
    MAX_COMMAND,
    MAX_ENVIRONMENT,
    MAX_OUTPUT_LIMIT,
    MAX_PATH,
    MAX_STDIN,
    MAX_TIMEOUT,
    MAX_WORD,
    check_command,
    check_config,
    check_labels,
    check_lease,
    check_linger,
    check_output_limit,
    check_path,
    check_request_id,
    check_seconds,
    check_signal,
)

DAY = 24 * 3600.0
NO_TIMES = [math.nan, math.inf, -math.inf, 1e300]
SURROGATE = "a\ud800"


def command(**fields: Any) -> Command:
    return Command(**{"program": ["true"], **fields})


def mounts(*asked: Mount) -> WorkspaceConfig:
    return WorkspaceConfig(mounts=asked)


def limits(**fields: Any) -> WorkspaceConfig:
    return WorkspaceConfig(limits=ResourceLimits(**fields))


def security(**fields: Any) -> WorkspaceConfig:
    return WorkspaceConfig(security=SecurityConfig(**fields))


def case(field: str, value: Any, hint: str = "") -> Any:
    return pytest.param(field, value, hint, id=f"{field}: {value!r:.40}")


BAD_CONFIGS = [
    case("working_dir", WorkspaceConfig(working_dir="")),
    case("working_dir", WorkspaceConfig(working_dir="work"), "/workspace/work"),
    case("working_dir", WorkspaceConfig(working_dir="/a/../b"), "'/b'"),
    case("working_dir", WorkspaceConfig(working_dir="/a\0b"), "NUL"),
    case("working_dir", WorkspaceConfig(working_dir="/" + SURROGATE)),
    case("working_dir", WorkspaceConfig(working_dir="/" + "x" * MAX_PATH), "4096"),
    case("environment", WorkspaceConfig(environment={"": "v"}), "empty"),
    case("environment", WorkspaceConfig(environment={"A=B": "v"}), "="),
    case("environment", WorkspaceConfig(environment={"A\0": "v"}), "NUL"),
    case("environment", WorkspaceConfig(environment={SURROGATE: "v"})),
    case('environment["A"]', WorkspaceConfig(environment={"A": "v\0"}), "NUL"),
    case('environment["A"]', WorkspaceConfig(environment={"A": SURROGATE})),
    case("environment", WorkspaceConfig(environment={"A": "x" * (MAX_WORD - 1)}), "131071"),
    case("environment", WorkspaceConfig(environment={"A": "ü" * (MAX_ENVIRONMENT // 4), "B": "x" * 65531}), "131072"),
    case("secrets", WorkspaceConfig(secrets={"A": "x" * (MAX_WORD - 1)}), "131071"),
    case("labels", WorkspaceConfig(labels={"": "v"}), "63"),
    case('labels["a"]', WorkspaceConfig(labels={"a": SURROGATE})),
    case("lease_duration", WorkspaceConfig(lease=0.999), "1 s to 86400 s"),
    case("lease_duration", WorkspaceConfig(lease=DAY + 1), "86400"),
    *(case("lease_duration", WorkspaceConfig(lease=seconds)) for seconds in NO_TIMES),
    case("security.pids_limit", security(pids_limit=15), "16 to 32768"),
    case("security.pids_limit", security(pids_limit=32769), "16 to 32768"),
    case("security.pids_limit", security(pids_limit=-1), ""),
    *(
        case("security.user", security(user=user), "1000")
        for user in ("", "root", "0:", ":0", "-1", "1:2:3", "1 ", "1\n")
    ),
    *(case("security.user", security(user=user), "2147483647") for user in ("2147483648", "0:2147483648")),
    case("limits.cpu", limits(cpu="two"), "0.5"),
    case("limits.cpu", limits(cpu=math.nan), "0.5"),
    case("limits.cpu_millis", limits(cpu=0.009), "10"),
    case("limits.cpu_millis", limits(cpu=-1)),
    case("limits.cpu_millis", limits(cpu=1e30), ""),
    case("limits.memory", limits(memory="lots"), "512M"),
    case("limits.memory_bytes", limits(memory=(16 << 20) - 1), "16777216"),
    case("limits.memory_bytes", limits(memory=-1)),
    case("limits.memory_bytes", limits(memory=1 << 64)),
    case("limits.memory_bytes", limits(memory="9" * 400 + "G")),
    case("limits.memory_bytes", limits(memory=(1 << 62) + 1), str(1 << 62)),
    case("limits.disk_bytes", limits(disk="1K"), "1048576"),
    case("limits.disk_bytes", limits(disk=(1 << 62) + 1), str(1 << 62)),
    case("limits.open_files_count", limits(open_files=63), "64"),
    case("limits.open_files_count", limits(open_files=-1)),
    case("mounts", mounts(*(Mount("/a", f"/{n}") for n in range(17))), "16"),
    case("mounts[0].source", mounts(Mount("a", "/a")), "relative"),
    case("mounts[0].source", mounts(Mount("/a/../b", "/a")), "'..'"),
    case("mounts[0].source", mounts(Mount("/a/", "/a")), "'/a'"),
    case("mounts[0].source", mounts(Mount("//a", "/a")), "'/a'"),
    case("mounts[0].source", mounts(Mount("/a\0", "/a")), "NUL"),
    case("mounts[0].source", mounts(Mount("/" + SURROGATE, "/a"))),
    case("mounts[1].target", mounts(Mount("/a", "/a"), Mount("/b", "./b")), "relative"),
    case("mounts[1].target", mounts(Mount("/a", "/a"), Mount("/b", "/a")), "'/a'"),
    case("mounts[1].target", mounts(Mount("/a", "/a"), Mount("/b", "/a/b")), "each other's way"),
    case("mounts[1].target", mounts(Mount("/a", "/a/b"), Mount("/b", "/a")), "each other's way"),
]


@pytest.mark.parametrize(("field", "config", "hint"), BAD_CONFIGS)
def test_config_that_is_refused(field: str, config: WorkspaceConfig, hint: str) -> None:
    assert_refused(lambda: check_config(config), field, hint)
    assert refused_field(lambda: convert.config_to_pb(config)) in (None, field)


GOOD_CONFIGS = [
    mounts(*(Mount("/a", f"/a{n}") for n in range(16))),
    mounts(Mount("/", "/host")),
    WorkspaceConfig(),
    WorkspaceConfig(working_dir="/"),
    WorkspaceConfig(working_dir="/a..b/…"),
    WorkspaceConfig(working_dir="/" + "x" * (MAX_PATH - 1)),
    WorkspaceConfig(environment={"A": "", "with space": "=\n", "ü": "ü"}),
    WorkspaceConfig(environment={"A": "x" * (MAX_WORD - 2)}),
    WorkspaceConfig(lease=1),
    WorkspaceConfig(lease=DAY),
    security(pids_limit=16, user="0"),
    security(pids_limit=32768, user="2147483647:0"),
    limits(cpu=0.01, memory=16 << 20, disk=1 << 20, open_files=64),
    limits(memory=1 << 62, disk=1 << 62),
    limits(cpu="64", memory="1024T", disk="4G", open_files=1 << 20, network=True),
]


@pytest.mark.parametrize("config", GOOD_CONFIGS, ids=lambda config: repr(config)[:60])
def test_config_at_the_border_is_accepted(config: WorkspaceConfig) -> None:
    check_config(config)
    convert.config_to_pb(config)


BAD_COMMANDS = [
    case("command.shell", command(program=""), "empty"),
    case("command.shell", command(program=" \n"), "empty"),
    case("command.shell", command(program="a\0b"), "NUL"),
    case("command.shell", command(program=SURROGATE)),
    case("command.argv", command(program=[]), "first argument"),
    case("command.argv", command(program=["", "a"]), "first argument"),
    case("command.argv.args[1]", command(program=["a", "\0"]), "NUL"),
    case("command.argv.args[2]", command(program=["a", "", "\udc80"])),
    case("command.working_dir", command(cwd="a"), "/workspace/a"),
    case("command.working_dir", command(cwd="/.."), "'/'"),
    case("command.environment", command(env={"=": "v"})),
    case('command.environment["A"]', command(env={"A": "\0"})),
    case('command.environment["A"]', command(env={"A": SURROGATE})),
    case("command.shell", command(program="x" * (MAX_WORD + 1)), "131071"),
    case("command.argv.args[1]", command(program=["a", "ü" * (MAX_WORD // 2 + 1)]), "131071"),
    case("command.environment", command(env={"A": "x" * (MAX_WORD - 1)}), "131071"),
    case("command", command(program=["x" * 1023] * (MAX_COMMAND >> 10) + [""]), "file"),
    case("command", command(env={f"{n:03}": "x" * 1020 for n in range(MAX_COMMAND >> 10)}), "file"),
    case("command.stdin", command(stdin=bytes(MAX_STDIN + 1)), "file"),
    case("command.timeout", command(timeout=0), "0.001"),
    case("command.timeout", command(timeout=-1), "0.001"),
    case("command.timeout", command(timeout=MAX_TIMEOUT * 2), "1e+09"),
    *(case("command.timeout", command(timeout=seconds)) for seconds in NO_TIMES),
    case("command.kill_grace", command(kill_grace=-0.1), "0 s to 60 s"),
    case("command.kill_grace", command(kill_grace=60.1), "0 s to 60 s"),
    case("command.kill_grace", command(kill_grace=60.000000001), "60.000000001 s is"),
    case("command.kill_grace", command(kill_grace=math.nan)),
    case("command.user", command(user="nobody"), "1000:1000"),
    case("command.user", command(user="٣"), ""),
]


@pytest.mark.parametrize(("field", "bad", "hint"), BAD_COMMANDS)
def test_command_that_is_refused(field: str, bad: Command, hint: str) -> None:
    assert_refused(lambda: check_command(bad), field, hint)
    assert refused_field(lambda: run_convert.command_to_pb(bad)) in (None, field)


GOOD_COMMANDS = [
    command(program="true"),
    command(program=["a", "", "ü"]),
    command(program="x" * MAX_WORD),
    command(program=["x" * 1023] * (MAX_COMMAND >> 10)),
    command(program=["a", "x" * MAX_WORD], env={"A": "x" * (MAX_WORD - 2)}),
    command(program=["a"], stdin=bytes(MAX_STDIN)),
    command(stdin=b""),
    command(timeout=0.001),
    command(timeout=MAX_TIMEOUT),
    command(kill_grace=60),
    command(user="1000"),
    command(cwd="/"),
]


@pytest.mark.parametrize("good", GOOD_COMMANDS, ids=lambda good: repr(good)[:60])
def test_command_at_the_border_is_accepted(good: Command) -> None:
    check_command(good)
    run_convert.command_to_pb(good)


BAD_NAMES = ["", "A", "-a", "a-", "a b", "ü", "a\n", "x" * 64, "/a", ".a"]
BAD_VALUES: list[tuple[str, Callable[[Any], None], list[Any]]] = [
    ("lease_duration", check_lease, [0, 0.5, DAY + 1, *NO_TIMES]),
    ("linger", check_linger, [-0.001, DAY + 1, *NO_TIMES]),
    ("output_limit_bytes", check_output_limit, [-1, MAX_OUTPUT_LIMIT + 1]),
    ("signal", check_signal, [0, -9, 65, 2**40]),
    ("request_id", check_request_id, ["", " ", "a b", "a\n", "ü", "\x7f", "x" * 129]),
    ("labels", check_labels, [{name: "v"} for name in BAD_NAMES] + [{f"l{n}": "" for n in range(65)}]),
    ('labels["a"]', check_labels, [{"a": "x" * 257}]),
    ("path", lambda path: check_path(path, "path"), ["", "\0", "x" * 4097, "ü" * 2049, SURROGATE, "\udc80"]),
    ("wait", lambda seconds: check_seconds(seconds, "wait", 1, 2), [0.999, 2.001, *NO_TIMES]),
]
GOOD_VALUES: list[tuple[Callable[[Any], None], list[Any]]] = [
    (check_lease, [1, 300, DAY]),
    (check_linger, [0, 0.001, DAY]),
    (check_output_limit, [0, 1, MAX_OUTPUT_LIMIT]),
    (check_signal, [1, 9, 15, 64]),
    (check_request_id, ["x", "~!", "x" * 128, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"]),
    (check_labels, [{}, {"a": "", "team/a.b_c-d": "x" * 256, "x" * 63: "ü"}, {f"l{n}": "" for n in range(64)}]),
    (lambda path: check_path(path, "path"), [".", "..", "/", "a b", "x" * 4096, "ü" * 2048, "\n"]),
    (lambda seconds: check_seconds(seconds, "wait", 1, 2), [1, 1.5, 2]),
]


@pytest.mark.parametrize(
    ("field", "check", "value"),
    [
        pytest.param(field, check, value, id=f"{field}={value!r:.30}")
        for field, check, values in BAD_VALUES
        for value in values
    ],
)
def test_value_that_is_refused(field: str, check: Callable[[Any], None], value: Any) -> None:
    assert_refused(lambda: check(value), field)


@pytest.mark.parametrize(("check", "values"), GOOD_VALUES)
def test_values_at_the_border_are_accepted(check: Callable[[Any], None], values: list[Any]) -> None:
    for value in values:
        check(value)


def test_refusals_never_show_the_values_of_variables() -> None:
    for value in ("s3cret\0", "s3cret\ud800"):
        with pytest.raises(InvalidArgumentError) as caught:
            check_command(command(env={"TOKEN": value}))
        assert "s3cret" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def assert_refused(check: Callable[[], None], field: str, hint: str = "") -> None:
    """The refusal names the field, holds the hint, and says more than that something is wrong."""
    with pytest.raises(InvalidArgumentError) as caught:
        check()
    assert caught.value.field == field
    assert hint in caught.value.message
    assert len(caught.value.message.split()) >= 3


def refused_field(make: Callable[[], object]) -> str | None:
    """Returns the field that a client refuses before it asks the service, which it may do, with no other error."""
    try:
        make()
    except InvalidArgumentError as error:
        return error.field
    return None


def test_defaults_are_within_the_limits() -> None:
    check_output_limit(validation.DEFAULT_OUTPUT_LIMIT)
    check_lease(WorkspaceConfig().lease)
