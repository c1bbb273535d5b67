"""Quotas of the configuration file hold in a service that is embedded, too."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentic_isolation import AgenticWorkspace, QuotaError
from tests.support.eventually import eventually

CONFIG = """
[quota]
commands = 2
streams = 1
output_per_second = "1M"
"""


@pytest.fixture
async def ws(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AgenticWorkspace]:
    config = directory / "config.toml"
    config.write_text(CONFIG)
    monkeypatch.setenv("AGENTIC_ISOLATION_CONFIG", str(config))
    async with AgenticWorkspace.create(provider="local", target="", retry_timeout=0) as workspace:
        yield workspace


async def test_commands_and_streams_are_counted(ws: AgenticWorkspace) -> None:
    waiting = asyncio.ensure_future(ws.execute("touch begun; until [ -e go ]; do sleep 0.01; done; echo gone"))
    await eventually(lambda: ws.file_exists("begun"), "the command runs")
    async with contextlib.aclosing(ws.stream("echo streamed; exec sleep 60")) as stream:
        assert await anext(stream) == "streamed"
        with pytest.raises(QuotaError) as refused:
            await ws.execute("touch ran")
        assert (refused.value.subject, refused.value.retry_after) == ("service", 1.0)
        await ws.write_file("go", "")
        assert (await waiting).stdout == "gone\n"
        assert (await ws.execute("echo there is room")).stdout == "there is room\n"
        with pytest.raises(QuotaError, match="streams"):
            await ws.start("touch ran")
    assert [line async for line in ws.stream("echo again")] == ["again"]
    assert not await ws.file_exists("ran")


async def test_output_is_held_back(ws: AgenticWorkspace) -> None:
    began = time.monotonic()
    assert sum([len(line) + 1 async for line in ws.stream("yes | head -c 1500000")]) == 1_500_000
    assert time.monotonic() - began > 0.9
