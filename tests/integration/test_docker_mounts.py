"""Paths of the engine's host in workspaces: those that the configuration allows, and only as it allows them."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentic_isolation import (
    AgenticWorkspace,
    InvalidArgumentError,
    IsolationUnavailableError,
    Mount,
    NotAllowedError,
    SecurityConfig,
)
from tests.support.service import ServedProcess

RUNTIMES = [
    pytest.param(SecurityConfig(use_gvisor=False), id="runc", marks=pytest.mark.docker),
    pytest.param(SecurityConfig(use_gvisor=True), id="gvisor", marks=pytest.mark.gvisor),
]


@pytest.fixture
def models(directory: Path) -> Path:
    """Where the host's own permissions would let everybody write."""
    path = directory / "models"
    path.mkdir()
    path.chmod(0o777)
    (path / "model").write_text("weights\n")
    (path / "model").chmod(0o666)
    return path


@pytest.fixture
def cache(directory: Path) -> Path:
    path = directory / "cache"
    path.mkdir()
    path.chmod(0o777)
    return path


@pytest.fixture
async def target(directory: Path, models: Path, cache: Path) -> AsyncIterator[str]:
    """A service whose one tenant may have both."""
    config = directory / "config.toml"
    config.write_text(
        f'[[tenant]]\nname = "all"\nidentities = ["unix"]\nfloor = "development"\nmounts = ["{models}", "{cache}:rw"]\n'
    )
    with ServedProcess("--address", f"unix:{directory}/grpc.sock", "--config", str(config)) as service:
        yield service.target


@pytest.mark.parametrize("security", RUNTIMES)
async def test_mounts_are_there_as_they_were_asked_for(
    target: str, models: Path, cache: Path, security: SecurityConfig
) -> None:
    mounts = [
        Mount(str(models), "/models"),
        Mount(str(models), "/workspace/models"),
        Mount(str(cache), "/home/agent/.cache/deep", read_only=False),
    ]
    async with AgenticWorkspace.create(security=security, mounts=mounts, target=target) as ws:
        assert (await ws.execute("cat /models/model models/model")).stdout == "weights\nweights\n"
        for attempt in (
            "> /models/new",
            "echo more >> /models/model",
            "> models/new",
            "rm /models/model",
            "chmod 777 /models",
            "mv /models/model /tmp",
        ):
            result = await ws.execute(attempt)
            assert not result.success, attempt
        assert (await ws.execute("umount /models || mount -o remount,rw /models")).exit_code != 0
        assert (await ws.execute("echo kept > ~/.cache/deep/file")).success
        assert (await ws.execute("echo mine > own")).success
    assert os.listdir(models) == ["model"]
    assert (cache / "file").read_text() == "kept\n", "it is the host's, and stays"


@pytest.mark.docker
async def test_what_is_not_allowed_is_refused_by_name(target: str, models: Path, cache: Path) -> None:
    (cache / "link").symlink_to("/etc")
    for mount, field in (
        (Mount("/etc", "/host"), "mounts[0].source"),
        (Mount(str(cache / "link"), "/host"), "mounts[0].source"),
        (Mount(str(models / "model"), "/host"), "mounts[0].source"),
        (Mount(str(models), "/models", read_only=False), "mounts[0].read_only"),
    ):
        with pytest.raises(NotAllowedError) as refused:
            await AgenticWorkspace.create(mounts=[mount], target=target)
        assert refused.value.field == field
    for place in ("/", "/etc", "/proc/1", "/tmp", "/home", "/home/agent", "/workspace"):
        with pytest.raises(InvalidArgumentError) as invalid:
            await AgenticWorkspace.create(mounts=[Mount(str(models), place)], target=target)
        assert invalid.value.field == "mounts[0].target"


@pytest.mark.docker
async def test_path_that_is_not_there_is_told_and_not_made(target: str, models: Path) -> None:
    shutil.rmtree(models)
    with pytest.raises(IsolationUnavailableError, match="does not exist"):
        await AgenticWorkspace.create(mounts=[Mount(str(models), "/models")], target=target)
    assert models.name not in os.listdir(models.parent)


async def test_nobody_has_any_without_tenants(directory: Path, models: Path) -> None:
    with (
        ServedProcess("--address", f"unix:{directory}/grpc.sock") as service,
        pytest.raises(NotAllowedError, match="may have none"),
    ):
        await AgenticWorkspace.create(mounts=[Mount(str(models), "/models")], target=service.target)


async def test_local_workspaces_have_none(models: Path) -> None:
    with pytest.raises(IsolationUnavailableError) as refused:
        await AgenticWorkspace.create("local", mounts=[Mount(str(models), "/models")])
    assert refused.value.field == "mounts"


@pytest.mark.docker
async def test_program_that_embeds_the_service_has_what_it_asks_for(models: Path) -> None:
    async with AgenticWorkspace.create(mounts=[Mount(str(models), "/models")]) as ws:
        assert (await ws.execute("cat /models/model")).stdout == "weights\n"
    with pytest.raises(InvalidArgumentError) as refused:
        await AgenticWorkspace.create(mounts="/models")  # type: ignore[arg-type]
    assert refused.value.field == "mounts"
