"""The audit log's writer: answers wait for their entries, nothing is lost in silence, and troubles end."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from agentic_isolation.errors import AuditUnavailableError
from agentic_isolation_service.audit import log as audit_log
from agentic_isolation_service.audit.log import AuditLog, Entry
from agentic_isolation_service.audit.verifying import verify
from agentic_isolation_service.settings.audit import AuditSettings
from tests.support.eventually import eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture(autouse=True)
def sharp_eyes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is looked at before each write."""
    monkeypatch.setattr(audit_log, "_LOOK_INTERVAL", 0)


def opened(path: Path, **settings: Any) -> Any:
    return AuditLog.open(AuditSettings(path=path, **settings), version="1")


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def break_it(path: Path) -> None:
    """What the log does not put up with: somebody else writes to its file."""
    with path.open("ab") as other:
        other.write(b"x")


def mend_it(path: Path) -> Path:
    """Moves the file away, as the message says, and returns where to."""
    return path.rename(path.with_name("old.jsonl"))


async def fails(log: AuditLog) -> bool:
    """Whether a call would be refused."""
    try:
        await log.ready()
    except AuditUnavailableError:
        return True
    return False


@pytest.mark.parametrize("sync_interval", [0, 0.01, 60])
async def test_what_was_waited_for_is_written(path: Path, sync_interval: float) -> None:
    async with opened(path, sync_interval=sync_interval) as log:
        await log.ready()
        began = Entry("began", {"method": "Execute"})
        log.note(began)
        await log.write(Entry("call", {"method": "Execute", "code": "OK"}, began))
        assert [entry["event"] for entry in entries(path)] == ["chain", "start", "began", "call"]
        assert entries(path)[-1]["began"] == 3
        async with asyncio.TaskGroup() as group:
            for _ in range(300):
                group.create_task(log.write(Entry("call", {"code": "OK"})))
        assert [entry["sequence"] for entry in entries(path)] == list(range(1, 305))
    assert entries(path)[-1]["event"] == "stop"
    assert verify([path]).error is None


async def test_calls_are_refused_while_it_cannot_be_written_and_nothing_is_lost(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as log:
        break_it(path)
        with pytest.raises(AuditUnavailableError, match="somebody else has cut it or written to it"):
            await log.write(Entry("call", {"number": 1}))
        with pytest.raises(AuditUnavailableError, match="nothing was done"):
            await log.ready()
        with pytest.raises(AuditUnavailableError):
            await log.write(Entry("call", {"number": 2}))
        old = mend_it(path)
        await eventually(lambda: not_failing(log), "it goes on")
        await log.write(Entry("call", {"number": 3}))
    assert [entry["number"] for entry in entries(path) if entry["event"] == "call"] == [1, 2, 3]
    assert verify([path], after=entries(path)[0]["previous"]).error is None
    assert old.read_bytes().endswith(b"x")
    assert caplog.text.count("cannot be written") == 1
    assert caplog.text.count("can be written again") == 1


async def not_failing(log: AuditLog) -> bool:
    return not await fails(log)


async def test_calls_go_on_where_that_is_wanted_and_the_log_tells_what_it_lacks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "MAX_QUEUED", 10)
    async with opened(path, fail_closed=False) as log:
        break_it(path)
        for number in range(15):
            await log.ready()
            await log.write(Entry("call", {"number": number}))
        mend_it(path)
    assert [entry["number"] for entry in entries(path) if entry["event"] == "call"] == list(range(10))
    assert [entry["entries"] for entry in entries(path) if entry["event"] == "lost"] == [5]


async def test_calls_are_held_back_when_it_is_slow(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "MAX_QUEUED", 10)
    monkeypatch.setattr(audit_log, "_PATIENCE", 0.5)
    async with opened(path) as log:
        # Within this turn of the loop nothing that was written is counted as such.
        for number in range(10):
            log.note(Entry("call", {"number": number}))
        held = asyncio.ensure_future(log.ready())
        await asyncio.sleep(0)
        assert not held.done()
        await held
    assert len(entries(path)) == 13


async def test_it_ends_though_it_cannot_be_written(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(path) as log:
        break_it(path)
        with pytest.raises(AuditUnavailableError):
            await log.write(Entry("call", {}))
    assert "has ended without its last entries" in caplog.text


async def test_it_does_not_open_what_it_cannot_use(path: Path) -> None:
    async with opened(path):
        with pytest.raises(OSError, match="another service"):
            async with opened(path):
                pass
    with pytest.raises(FileNotFoundError):
        async with opened(path.parent / "missing" / "audit.jsonl"):
            pass


async def test_an_end_names_no_beginning_that_is_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(path, fail_closed=False) as log:
        began = Entry("began", {"method": "Execute"})
        with monkeypatch.context() as full:
            full.setattr(audit_log, "MAX_QUEUED", 0)
            assert not log.note(began)
        await log.write(Entry("call", {"method": "Execute"}, began))
    [ended] = [entry for entry in entries(path) if entry["event"] == "call"]
    assert "began" not in ended


async def test_log_whose_opening_is_cancelled_at_any_moment_can_be_opened_again(path: Path) -> None:
    """Neither its file stays locked nor its threads stay."""
    turns = 0
    while True:
        log = opened(path)
        opening = asyncio.create_task(log.__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled():
            break
        turns += 1 + turns // 10
    assert opening.exception() is None
    await log.__aexit__(None, None, None)
    names = [thread.name for thread in threading.enumerate()]
    assert not {"audit", "audit-sync"} & set(names)
