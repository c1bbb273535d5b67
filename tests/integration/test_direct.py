"""A provider object's own methods, and its workspaces, which are used like those of a service."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from agentic_isolation import (
    AgenticWorkspace,
    ClosedError,
    InvalidArgumentError,
    WorkspaceConfig,
    WorkspaceInfo,
    WorkspaceLocalProvider,
    WorkspaceNotFoundError,
)
from tests.support.leaks import Holdings, left_behind

CONFIG = WorkspaceConfig(provider="local", lease=60)
METHODS = ("execute", "stream", "describe", "write_file", "read_file", "file_exists")


def exists(workspace: WorkspaceInfo) -> bool:
    return Path(workspace.host_path).exists()


async def assert_gone(provider: WorkspaceLocalProvider, workspace: WorkspaceInfo) -> None:
    assert not exists(workspace)
    for use in (provider.execute(workspace, "true"), provider.read_file(workspace, "x"), provider.describe(workspace)):
        with pytest.raises(WorkspaceNotFoundError, match=workspace.id):
            await use
    for refused in (lambda: provider.stream(workspace, "true"), lambda: provider.workspace(workspace)):
        with pytest.raises(WorkspaceNotFoundError, match=workspace.id):
            refused()
    await provider.destroy(workspace)


@pytest.mark.parametrize("name", METHODS)
def test_methods_take_a_workspace_and_what_it_takes(name: str) -> None:
    _, *arguments = inspect.signature(getattr(AgenticWorkspace, name)).parameters.values()
    _, workspace, *others = inspect.signature(getattr(WorkspaceLocalProvider, name)).parameters.values()
    assert (workspace.name, others) == ("workspace", arguments)


async def test_use() -> None:
    provider = WorkspaceLocalProvider()
    workspace = await provider.create(CONFIG)
    await provider.write_file(workspace, "file", "text")
    assert await provider.read_file(workspace, "file") == b"text"
    assert await provider.file_exists(workspace, "file")
    assert (await provider.execute(workspace, "cat file; exit 3")).exit_code == 3
    assert [line async for line in provider.stream(workspace, "seq 2")] == ["1", "2"]
    assert (await provider.describe(workspace)).id == workspace.id
    await provider.destroy(workspace)
    await assert_gone(provider, workspace)


async def test_workspaces_are_used_like_those_of_a_service() -> None:
    """Closing and destroying are one, and what the provider keeps open it closes with the last."""
    before = Holdings.now()
    provider = WorkspaceLocalProvider()
    for end in ("close", "destroy"):
        workspace = await provider.create(CONFIG)
        other = await provider.create(CONFIG)
        ws = provider.workspace(workspace)
        assert ws.info == workspace
        async with await ws.start("cat") as process:
            await process.write("in")
            await process.send_eof()
            assert (await process.wait()).exit_code == 0
        await (ws.close() if end == "close" else provider.destroy(workspace))
        with pytest.raises(ClosedError):
            await ws.execute("true")
        await assert_gone(provider, workspace)
        assert (await provider.execute(other, "true")).success
        await provider.destroy(other)
        assert left_behind(before) == []


async def test_what_is_refused() -> None:
    provider = WorkspaceLocalProvider()
    with pytest.raises(InvalidArgumentError, match="local") as raised:
        await provider.create(WorkspaceConfig(provider="docker"))
    assert raised.value.field == "provider"
