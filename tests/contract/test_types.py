"""Arguments of types that they do not have: refused by their field, whatever Python would make of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentic_isolation import (
    AgenticWorkspace,
    Credentials,
    InvalidArgumentError,
    ResourceLimits,
    SecurityConfig,
    ServiceClient,
    WorkspaceDockerProvider,
    WorkspaceLocalProvider,
)
from agentic_isolation import _convert as convert
from agentic_isolation.models import WorkspaceConfig
from tests.support.ways import Workspace

SURROGATE = "a\udc80"

COMMANDS: list[tuple[dict[str, Any], str]] = [
    ({"command": None}, "command"),
    ({"command": b"ls"}, "command"),
    ({"command": Path("/bin/ls")}, "command"),
    ({"command": ["sleep", 5]}, "command.argv.args[1]"),
    ({"command": "true", "cwd": Path("/workspace")}, "command.working_dir"),
    ({"command": "true", "env": "A=B"}, "command.environment"),
    ({"command": "true", "env": {1: "A"}}, "command.environment"),
    ({"command": "true", "env": {"PORT": 8080}}, 'command.environment["PORT"]'),
    ({"command": "true", "timeout": "1"}, "command.timeout"),
    ({"command": "true", "timeout": timedelta(seconds=1)}, "command.timeout"),
    ({"command": "true", "timeout": 10**400}, "command.timeout"),
    ({"command": "true", "redact_secrets": "yes"}, "command.redact_secrets"),
]
OTHERS: list[tuple[Callable[[Any], Awaitable[object]], str]] = [
    (lambda ws: ws.execute("cat", stdin=5), "command.stdin"),
    (lambda ws: ws.execute("cat", stdin=SURROGATE), "command.stdin"),
    (lambda ws: ws.execute("true", output_limit=1.5), "output_limit_bytes"),
    (lambda ws: ws.start("true", terminal=(80, 24)), "terminal"),
    (lambda ws: ws.start("true", detached="no"), "detached"),
    (lambda ws: ws.attach(5), "process_id"),
    (lambda ws: ws.attach("p-unknown", offset="0"), "offset"),
    (lambda ws: ws.attach("p-unknown", take_input="no"), "take_input"),
    (lambda ws: ws.signal("p-unknown", "SIGTERM"), "signal"),
    (lambda ws: ws.write_file(Path("file"), ""), "path"),
    (lambda ws: ws.write_file("file", SURROGATE), "content"),
    (lambda ws: ws.write_file("file", "", mode="0o644"), "mode"),
    (lambda ws: ws.read_file(Path("file")), "path"),
    (lambda ws: ws.files.remove("file", recursive="no"), "recursive"),
    (lambda ws: ws.upload(5), "local"),
    (lambda ws: ws.upload("no\0path"), "local"),
    (lambda ws: ws.upload(""), "local"),
    (lambda ws: ws.upload("/", ignore=None), "ignore"),
    (lambda ws: ws.upload("/", progress=5), "progress"),
    (lambda ws: ws.download(Path("file")), "remote"),
    (lambda ws: ws.download("file", progress="bar"), "progress"),
    (lambda ws: ws.download(".", 5), "local"),
]
CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"image": 5}, "image"),
    ({"working_dir": Path("/workspace")}, "working_dir"),
    ({"environment": {"PORT": 8080}}, 'environment["PORT"]'),
    ({"labels": "a"}, "labels"),
    ({"secrets": [("A", "B")]}, "secrets"),
    ({"lease": "300"}, "lease_duration"),
    ({"security": "production"}, "security"),
    ({"security": SecurityConfig(pids_limit="64")}, "security.pids_limit"),  # type: ignore[arg-type]
    ({"security": SecurityConfig(user=1000)}, "security.user"),  # type: ignore[arg-type]
    ({"security": SecurityConfig(cap_drop_all=None)}, "security.cap_drop_all"),  # type: ignore[arg-type]
    ({"security": SecurityConfig(use_gvisor="no")}, "security.use_gvisor"),  # type: ignore[arg-type]
    ({"limits": {"cpu": 2}}, "limits"),
    ({"limits": ResourceLimits(cpu=[2])}, "limits.cpu"),  # type: ignore[arg-type]
    ({"limits": ResourceLimits(memory=1.5e9)}, "limits.memory"),  # type: ignore[arg-type]
    ({"limits": ResourceLimits(network="none")}, "limits.network"),  # type: ignore[arg-type]
]


async def test_commands(ws: Workspace) -> None:
    async def stream(**arguments: Any) -> None:
        async for _ in ws.stream(**arguments):
            pass

    for arguments, field in COMMANDS:
        for attempt in (ws.execute, stream, ws.start):
            with pytest.raises(InvalidArgumentError) as caught:
                await attempt(**arguments)
            assert caught.value.field == field, f"{arguments!r:.100}"


async def test_other_calls(ws: Workspace) -> None:
    for position, (attempt, field) in enumerate(OTHERS):
        with pytest.raises(InvalidArgumentError) as caught:
            await attempt(ws)
        assert caught.value.field == field, f"number {position}"
    async with await ws.start("read line; echo $line") as process:
        with pytest.raises(InvalidArgumentError, match="data"):
            await process.write(5)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="columns"):
            await process.resize("80", 24)  # type: ignore[arg-type]
        await process.write(b"it\n")
        assert [line async for line in process.lines()] == ["it"]


async def test_values_are_not_told(ws: Workspace) -> None:
    """They may be secrets."""
    with pytest.raises(InvalidArgumentError) as caught:
        await ws.execute("true", env={"PIN": 271828})  # type: ignore[dict-item]
    assert "271828" not in str(caught.value)


@pytest.mark.parametrize(("settings", "field"), CONFIGS)
def test_workspaces(settings: dict[str, Any], field: str) -> None:
    for make in (WorkspaceConfig, lambda **settings: AgenticWorkspace.create(**settings).config):
        with pytest.raises(InvalidArgumentError) as caught:
            convert.config_to_pb(make(**settings))
        assert caught.value.field == field


@pytest.mark.parametrize("workspace_id", [None, 5, b"ws", SURROGATE])
def test_ids(workspace_id: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        AgenticWorkspace.connect(workspace_id)
    assert caught.value.field == "workspace_id"


def test_ways_to_a_service() -> None:
    ways: list[dict[str, Any]] = [{"target": 5}, {"retry_timeout": "60"}, {"credentials": "token"}]
    for make in (AgenticWorkspace.create, partial(ServiceClient, target="unix:/nowhere")):
        for way in ways:
            with pytest.raises(InvalidArgumentError) as caught:
                make(**way)
            assert [caught.value.field] == [*way]
    with pytest.raises(InvalidArgumentError, match="replica"):
        ServiceClient("unix:/nowhere", replica=5)  # type: ignore[arg-type]


def test_credentials() -> None:
    wrong: list[dict[str, Any]] = [
        {"token": b"t"},
        {"token_file": 5},
        {"ca_file": b"/"},
        {"server_name": 5},
        {"tls": "1"},
    ]
    for settings in wrong:
        with pytest.raises(InvalidArgumentError) as caught:
            Credentials(**settings)
        assert [caught.value.field] == [f"credentials.{name}" for name in settings]


async def test_providers() -> None:
    provider = WorkspaceLocalProvider()
    for attempt in (lambda given: provider.execute(given, "true"), provider.destroy):
        with pytest.raises(InvalidArgumentError, match="workspace: give WorkspaceInfo"):
            await attempt("ws-aaaaaaaaaaaaaaaaaaaa")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="config: give WorkspaceConfig"):
        await provider.create("local")  # type: ignore[arg-type]
    for settings in ({"default_image": 5}, {"host": Path("/run/docker.sock")}):
        with pytest.raises(InvalidArgumentError) as caught:
            WorkspaceDockerProvider(**settings)
        assert [caught.value.field] == [*settings]


def test_config() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        AgenticWorkspace("docker")  # type: ignore[arg-type]
    assert caught.value.field == "config"
