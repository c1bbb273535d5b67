"""Images that are missing, malformed, have settings of their own, or have next to nothing in them."""

from __future__ import annotations

import asyncio

import pytest

from agentic_isolation import (
    AgenticWorkspace,
    ImageUnavailableError,
    InvalidArgumentError,
    ProgramNotFoundError,
    SecurityConfig,
)
from tests.engine import Engine
from tests.support.engine_leaks import container_of
from tests.support.eventually import eventually
from tests.support.service import ServedProcess

pytestmark = pytest.mark.docker


def anonymous_volumes(engine: Engine, container: str) -> set[str]:
    """The volumes that are there for a container alone, with a label or without."""
    mounts = engine.api.json("GET", f"/containers/{container}/json")["Mounts"]
    return {mount["Name"] for mount in mounts if mount["Type"] == "volume" and len(mount["Name"]) == 64}


def all_volumes(engine: Engine) -> set[str]:
    return {volume["Name"] for volume in engine.api.json("GET", "/volumes")["Volumes"] or ()}


@pytest.mark.parametrize(
    "image", ["agentic-isolation-test/missing:1", "127.0.0.1:1/team/missing", f"missing@sha256:{'0' * 64}"]
)
async def test_missing_image(service: ServedProcess, image: str) -> None:
    """The error names it, and has the engine's or the registry's answer."""
    with pytest.raises(ImageUnavailableError, match=image) as raised:
        await AgenticWorkspace.create(image=image, lease=60, target=service.target)
    assert raised.value.field == "image"
    assert "cannot pull it: " in raised.value.message


@pytest.mark.parametrize(
    "image",
    ["Upper/case", "with space", "image:", ":tag", "image:tag:tag", "/image", "image/", "a//b", "image@sha256:123",
     "../containers/json", "image?all=1", "image#fragment", "im\nage", "ímage", "-image", "a" * 300, "x" * 5000],
)  # fmt: skip
async def test_malformed_image(service: ServedProcess, image: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        await AgenticWorkspace.create(image=image, lease=60, target=service.target)
    assert raised.value.field == "image"


async def test_image_with_settings_of_its_own(engine: Engine, service: ServedProcess, security: SecurityConfig) -> None:
    """An entrypoint that fails, a user, a directory and a volume: none is in the way, and none is left."""
    image = engine.images.entrypoint
    async with AgenticWorkspace.create(image=image, security=security, lease=60, target=service.target) as ws:
        volumes = anonymous_volumes(engine, container_of(engine, ws.id))
        assert len(volumes) == 2, "the workspace's, and the image's own"
        result = await ws.execute("id -u; pwd; echo $HOME; touch /workspace/file && echo written")
        assert result.stdout.split() == ["1000", "/workspace", "/home/agent", "written"]
        assert await ws.file_exists("file")
    await eventually(lambda: not volumes & all_volumes(engine), "both volumes are gone")


async def test_image_with_next_to_nothing(engine: Engine, service: ServedProcess, security: SecurityConfig) -> None:
    """No shell, no libc, no /etc: programs run, files are moved, and a shell line says what is missing."""
    image = engine.images.tiny
    async with AgenticWorkspace.create(image=image, security=security, lease=60, target=service.target) as ws:
        await ws.write_file("greeting", "hello\n")
        assert (await ws.execute(["cat", "/workspace/greeting"])).stdout == "hello\n"
        assert [line async for line in ws.stream(["/bin/echo", "from", "a", "stream"])] == ["from a stream"]
        assert (await ws.execute(["false"])).exit_code == 1
        with pytest.raises(ProgramNotFoundError, match="/bin/sh"):
            await ws.execute("echo a shell line")
        assert await ws.read_file("greeting") == b"hello\n"


async def test_image_that_is_named_by_its_id(engine: Engine, service: ServedProcess) -> None:
    image = await asyncio.to_thread(engine.api.json, "GET", f"/images/{engine.images.tiny}/json")
    security = SecurityConfig(use_gvisor=False)
    for name in (image["Id"], image["Id"].removeprefix("sha256:")[:12], f"docker.io/{engine.images.tiny}"):
        async with AgenticWorkspace.create(image=name, security=security, lease=60, target=service.target) as ws:
            assert (await ws.execute(["true"])).success
