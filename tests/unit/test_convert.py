"""Models ↔ messages: nothing that a model says is lost on the way, absent stays absent, and unknown has a default."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_isolation import InvalidArgumentError
from agentic_isolation import _convert as convert
from agentic_isolation import _convert_runs as run_convert
from agentic_isolation.models import (
    FileInfo,
    FileType,
    Isolation,
    Mount,
    NetworkMode,
    ProviderInfo,
    ResourceLimits,
    ResourceUsage,
    SecurityConfig,
    WorkspaceConfig,
    WorkspaceInfo,
    WorkspaceState,
)
from agentic_isolation.runs import (
    CapturedOutput,
    Command,
    Exited,
    Gap,
    KeepAlive,
    Output,
    OutputSource,
    Started,
    StreamEvent,
    Termination,
    TerminationCause,
)
from agentic_isolation.v1 import workspace_pb2 as pb

texts = st.text(max_size=20)
words = st.text(min_size=1, max_size=20)
mappings = st.dictionaries(texts, texts, max_size=3)
uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
nanoseconds = st.integers(0, 10**15).map(lambda number: number / 1e9)
"""Times in seconds that a Duration and a float both hold exactly enough."""
times = st.datetimes(timezones=st.just(dt.UTC))


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


securities = st.builds(
    SecurityConfig,
    pids_limit=uint32,
    use_gvisor=optional(st.booleans()),
    user=optional(texts),
    cap_drop_all=st.booleans(),
)
limits = st.builds(
    ResourceLimits,
    cpu=optional(st.integers(0, 10**6).map(lambda millis: millis / 1000)),
    memory=optional(uint64),
    disk=optional(uint64),
    open_files=optional(uint32),
    network=optional(st.booleans()),
)
configs = st.builds(
    WorkspaceConfig,
    provider=texts,
    image=optional(words),
    working_dir=words,
    environment=mappings,
    security=optional(securities),
    limits=optional(limits),
    labels=mappings,
    lease=nanoseconds,
    mounts=st.lists(st.builds(Mount, texts, texts, st.booleans()), max_size=3).map(tuple),
)
commands = st.builds(
    Command,
    program=texts | st.lists(texts, max_size=3),
    cwd=optional(words),
    env=mappings,
    stdin=optional(st.binary(max_size=20)),
    timeout=optional(nanoseconds),
    kill_grace=nanoseconds,
    user=optional(words),
)
isolations = st.builds(
    Isolation,
    runtime=texts,
    user=texts,
    capabilities=st.lists(texts, max_size=3).map(tuple),
    no_new_privileges=optional(st.booleans()),
    seccomp=texts,
    read_only_root=optional(st.booleans()),
    network=optional(st.sampled_from(NetworkMode)),
    cpu_millis=optional(uint32),
    memory_bytes=optional(uint64),
    disk_bytes=optional(uint64),
    open_files=optional(uint32),
    pids_limit=optional(uint32),
    kernel=texts,
)
usages = st.builds(
    ResourceUsage,
    memory_bytes=optional(uint64),
    cpu_seconds=optional(nanoseconds),
    pids=optional(uint32),
    disk_bytes=optional(uint64),
)
workspaces = st.builds(
    WorkspaceInfo,
    id=texts,
    provider=texts,
    state=st.sampled_from(WorkspaceState),
    working_dir=texts,
    created_at=times,
    lease_expires_at=times,
    isolation=isolations,
    image=texts,
    labels=mappings,
    usage=optional(usages),
    host_path=texts,
    tenant=texts,
)
microseconds_as_ms = st.integers(0, 10**15).map(lambda number: number / 1000)
terminations = st.builds(
    Termination,
    cause=st.sampled_from(TerminationCause),
    exit_code=st.just(None),
    signal=st.just(None),
    started_at=times,
    duration_ms=microseconds_as_ms,
    cpu_ms=microseconds_as_ms,
    peak_memory_bytes=uint64,
    survivors=uint32,
).flatmap(
    lambda termination: st.sampled_from(
        [
            termination,
            *(dataclasses.replace(termination, exit_code=code) for code in (0, 1, 255)),
            *(dataclasses.replace(termination, signal=number) for number in (1, 64)),
        ]
    )
)
outputs = st.builds(CapturedOutput, st.binary(max_size=20), st.binary(max_size=20), uint64, uint64)
events: st.SearchStrategy[StreamEvent] = st.one_of(
    st.builds(Started, texts, times),
    st.builds(Output, st.sampled_from(OutputSource), uint64, st.binary(max_size=20)),
    st.builds(Gap, uint64),
    st.builds(Exited, terminations),
    st.just(KeepAlive()),
)
files = st.builds(
    FileInfo,
    path=texts,
    name=texts,
    type=st.sampled_from(FileType),
    size_bytes=uint64,
    mode=uint32,
    modified_at=times,
    symlink_target=texts,
)
providers = st.builds(
    ProviderInfo, name=texts, available=st.booleans(), unavailable_reason=texts, isolation=optional(isolations)
)


def same_termination(one: Termination, other: Termination) -> bool:
    """Whether they are the same but for the last digits of floats."""
    assert one.duration_ms == pytest.approx(other.duration_ms)
    assert one.cpu_ms == pytest.approx(other.cpu_ms)
    return dataclasses.replace(one, duration_ms=0, cpu_ms=0) == dataclasses.replace(other, duration_ms=0, cpu_ms=0)


@given(nanoseconds)
def test_duration(seconds: float) -> None:
    message = convert.duration_to_pb(seconds)
    assert 0 <= message.nanos < 10**9
    assert convert.duration_from_pb(message) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -float("inf"), 1e300, -1e300])
def test_duration_that_no_message_holds(seconds: float) -> None:
    with pytest.raises(InvalidArgumentError):
        convert.duration_to_pb(seconds, "linger")


@given(times)
def test_timestamp(time: dt.datetime) -> None:
    assert convert.timestamp_from_pb(convert.timestamp_to_pb(time)) == time


@given(configs)
def test_config(config: WorkspaceConfig) -> None:
    received = convert.config_from_pb(convert.config_to_pb(config))
    assert received.lease == pytest.approx(config.lease, abs=1e-9)
    assert received.environment == config.environment
    assert dataclasses.replace(received, lease=0) == dataclasses.replace(config, lease=0)


def test_empty_request_means_the_defaults() -> None:
    default = WorkspaceConfig()
    assert convert.config_from_pb(pb.CreateWorkspaceRequest(provider=default.provider)) == default


@given(securities)
def test_security(security: SecurityConfig) -> None:
    assert convert.security_from_pb(convert.security_to_pb(security)) == security


def test_absent_security_fields_are_productions() -> None:
    assert convert.security_from_pb(pb.SecurityConfig()) == SecurityConfig.production()
    assert convert.security_from_pb(pb.SecurityConfig(pids_limit=99)) == SecurityConfig(pids_limit=99)


@given(limits)
def test_limits(asked: ResourceLimits) -> None:
    received = convert.limits_from_pb(convert.limits_to_pb(asked))
    assert received == asked
    assert (received.cpu_millis, received.memory_bytes) == (asked.cpu_millis, asked.memory_bytes)


@given(commands)
def test_command(command: Command) -> None:
    received = run_convert.command_from_pb(run_convert.command_to_pb(command))
    assert received.kill_grace == pytest.approx(command.kill_grace, abs=1e-9)
    assert received.timeout == pytest.approx(command.timeout, abs=1e-9)
    assert (received.program, received.env, received.stdin) == (command.program, command.env, command.stdin)
    assert (received.cwd, received.user) == (command.cwd, command.user)


def test_command_without_a_program_has_an_empty_one() -> None:
    assert run_convert.command_from_pb(pb.Command()) == Command([])


@settings(max_examples=40)
@given(isolations)
def test_isolation(isolation: Isolation) -> None:
    assert convert.isolation_from_pb(convert.isolation_to_pb(isolation)) == isolation


@settings(max_examples=40)
@given(workspaces)
def test_workspace(info: WorkspaceInfo) -> None:
    received = convert.workspace_from_pb(convert.workspace_to_pb(info))
    if info.usage is not None and received.usage is not None:
        assert received.usage.cpu_seconds == pytest.approx(info.usage.cpu_seconds, abs=1e-9)
        received = dataclasses.replace(received, usage=dataclasses.replace(received.usage, cpu_seconds=0))
        info = dataclasses.replace(info, usage=dataclasses.replace(info.usage, cpu_seconds=0))
    assert received == info


@settings(max_examples=40)
@given(terminations)
def test_termination(termination: Termination) -> None:
    received = run_convert.termination_from_pb(run_convert.termination_to_pb(termination))
    assert same_termination(received, termination)
    assert received.returncode == termination.returncode


@given(outputs)
def test_captured_output(output: CapturedOutput) -> None:
    assert run_convert.captured_from_pb(run_convert.captured_to_pb(output)) == output


@settings(max_examples=40)
@given(events)
def test_event(event: StreamEvent) -> None:
    received = run_convert.event_from_pb(run_convert.event_to_pb(event, pb.StreamResponse))
    if isinstance(event, Exited):
        assert isinstance(received, Exited)
        assert same_termination(received.termination, event.termination)
    else:
        assert received == event


@given(files)
def test_file(file: FileInfo) -> None:
    assert convert.file_from_pb(convert.file_to_pb(file)) == file


@settings(max_examples=40)
@given(st.lists(providers, max_size=3))
def test_server(described: list[ProviderInfo]) -> None:
    message = pb.GetServerInfoResponse(
        version="1", providers=[convert.provider_to_pb(provider) for provider in described]
    )
    assert convert.server_from_pb(message).providers == described


def test_what_a_newer_server_says_has_a_default() -> None:
    assert run_convert.event_from_pb(pb.StreamResponse()) is None
    output = pb.ProcessOutput(source=99, data=b"x")  # type: ignore[arg-type]
    assert run_convert.event_from_pb(pb.StreamResponse(output=output)) == Output(OutputSource.STDOUT, 0, b"x")
    assert convert.file_from_pb(pb.FileInfo(type=99)).type is FileType.OTHER  # type: ignore[arg-type]
    assert convert.workspace_from_pb(pb.Workspace(state=99)).state is WorkspaceState.READY  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "numbers",
    [
        {"cpu": -1},
        {"cpu": 1e9},
        {"memory": -1},
        {"memory": 1 << 64},
        {"disk": "9" * 400},
        {"open_files": 1 << 32},
        {"open_files": -1},
    ],
    ids=lambda numbers: f"{numbers!r:.30}",
)
def test_numbers_that_no_message_holds(numbers: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        convert.limits_to_pb(ResourceLimits(**numbers))
    assert (caught.value.field or "").startswith("limits.")
