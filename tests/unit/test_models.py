"""Values: sizes, results, what they show and what they hide."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from agentic_isolation import InvalidArgumentError, models
from agentic_isolation.models import ResourceLimits, SecurityConfig, WorkspaceConfig, parse_size
from agentic_isolation.runs import CapturedOutput, Command, ExecuteResult, Termination, TerminationCause, command_of

NOW = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def ended(
    cause: TerminationCause = TerminationCause.EXITED, *, exit_code: int | None = None, signal: int | None = None
) -> Termination:
    return Termination(cause=cause, exit_code=exit_code, signal=signal, started_at=NOW, duration_ms=12.5)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (536870912, 536870912),
        ("536870912", 536870912),
        ("4G", 4 << 30),
        ("512M", 512 << 20),
        ("512m", 512 << 20),
        ("1.5GiB", 3 << 29),
        ("64 KiB", 64 << 10),
        ("64KB", 64 << 10),
        ("2T", 2 << 40),
        ("100B", 100),
        (" 1k ", 1 << 10),
        ("0.5", 0),
        ("9007199254740993", 9007199254740993),
        ("8" * 400, int("8" * 400)),
    ],
)
def test_size(written: int | str, size: int) -> None:
    assert parse_size(written, field="limits.memory") == size


@pytest.mark.parametrize(
    "written",
    [
        "",
        "G",
        "4X",
        "4 GG",
        "-1",
        "1e9",
        "1,5G",
        "4G\n4G",
        "0x10",
        ".5G",
        "1.G",
        "inf",
        pytest.param("9" * 5000, id="long"),
    ],
)
def test_no_size(written: str) -> None:
    with pytest.raises(InvalidArgumentError, match="512M") as caught:
        parse_size(written, field="limits.memory")
    assert caught.value.field == "limits.memory"


def test_limits_in_the_contracts_units() -> None:
    limits = ResourceLimits(cpu="1.5", memory="4G", disk=1000)
    assert (limits.cpu_millis, limits.memory_bytes, limits.disk_bytes) == (1500, 4 << 30, 1000)
    assert ResourceLimits(cpu=0.5).cpu_millis == 500
    assert ResourceLimits(cpu=2).cpu_millis == 2000
    nothing = ResourceLimits()
    assert (nothing.cpu_millis, nothing.memory_bytes, nothing.disk_bytes) == (None, None, None)


@pytest.mark.parametrize("cpu", ["two", "", "1,5", "nan", "inf", float("nan"), float("inf"), "1" * 400])
def test_no_number_of_cpus(cpu: str | float) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        ResourceLimits(cpu=cpu).cpu_millis  # noqa: B018
    assert caught.value.field == "limits.cpu"


@pytest.mark.parametrize(
    ("termination", "returncode"),
    [
        (ended(exit_code=0), 0),
        (ended(exit_code=255), 255),
        (ended(TerminationCause.SIGNALED, signal=11), 139),
        (ended(TerminationCause.KILLED, signal=9), 137),
        (ended(TerminationCause.OUT_OF_MEMORY, signal=9), 137),
        (ended(TerminationCause.TIMEOUT, signal=9), 124),
        (ended(TerminationCause.TIMEOUT, exit_code=0), 124),
        (ended(TerminationCause.WORKSPACE_LOST), -1),
    ],
)
def test_returncode(termination: Termination, returncode: int) -> None:
    assert termination.returncode == returncode
    result = ExecuteResult.of(termination, CapturedOutput(), CapturedOutput())
    assert result.exit_code == returncode
    assert result.success == (returncode == 0)
    assert result.timed_out == (termination.cause is TerminationCause.TIMEOUT)
    assert (result.termination, result.duration_ms) == (termination, 12.5)


def test_result_of_output() -> None:
    stdout = CapturedOutput(head=b"all \xff of it", total_bytes=11)
    stderr = CapturedOutput(head=b"begin", tail=b"end", omitted_bytes=92, total_bytes=100)
    result = ExecuteResult.of(ended(exit_code=0), stdout, stderr)
    assert result.stdout == "all \N{REPLACEMENT CHARACTER} of it"
    assert result.stderr == "begin\n[... 92 bytes left out ...]\nend"
    assert result.truncated
    assert result.output == (stdout, stderr)
    assert not ExecuteResult.of(ended(exit_code=0), stdout, stdout).truncated


def test_text_of_output_that_is_whole_joins_characters_cut_in_two() -> None:
    euro = "€".encode()
    assert CapturedOutput(head=euro[:1], tail=euro[1:], total_bytes=3).text() == "€"


def test_values_of_variables_and_input_are_in_no_repr() -> None:
    command = Command(["x"], env={"TOKEN": "s3cret"}, stdin=b"s3cret")
    config = WorkspaceConfig(environment={"TOKEN": "s3cret"})
    result = ExecuteResult.of(ended(exit_code=0), CapturedOutput(head=b"x"), CapturedOutput())
    for shown in (repr(command), repr(config), str(config), repr(dataclasses.replace(config, image="i"))):
        assert "s3cret" not in shown
        assert "TOKEN" not in shown
    assert "CapturedOutput" not in repr(result)


def test_production_is_the_default_and_development_says_what_it_gives_up() -> None:
    assert SecurityConfig.production() == SecurityConfig()
    weaker = SecurityConfig.development()
    assert not weaker.read_only_root
    assert weaker.use_gvisor is False
    assert dataclasses.replace(weaker, read_only_root=True, use_gvisor=None) == SecurityConfig()


def test_command_of_arguments() -> None:
    assert command_of("ls | wc") == Command("ls | wc")
    arguments = ["a", "b"]
    command = command_of(arguments, timeout=0, cwd="/x", env={"A": "1"}, stdin="ü")
    arguments.append("later")
    assert command == Command(("a", "b"), cwd="/x", env={"A": "1"}, stdin="ü".encode(), timeout=0)
    assert command_of("x", stdin="").stdin == b""
    assert command_of("x").stdin is None


def test_models_are_frozen() -> None:
    for name in models.__all__:
        model = getattr(models, name)
        if dataclasses.is_dataclass(model) and isinstance(model, type):
            assert model.__dataclass_params__.frozen, name  # type: ignore[attr-defined]
            assert hasattr(model, "__slots__"), name
