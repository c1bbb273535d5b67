"""The registry: what is put is loaded, by this version and others, and what was sealed by somebody else is refused."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_isolation import InvalidArgumentError
from agentic_isolation import _convert as convert
from agentic_isolation.models import WorkspaceConfig, WorkspaceState
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.records import WorkspaceRecord
from agentic_isolation_service.registry import SqliteRegistry, codec
from tests.unit.test_convert import configs, texts, workspaces
from tests.unit.test_convert import optional as maybe

seconds = st.integers(1, 10**9).map(float)
endings = st.fixed_dictionaries({"idle_timeout": maybe(seconds), "max_lifetime": maybe(seconds)})
records = st.builds(
    lambda config, ends, *rest: WorkspaceRecord(dataclasses.replace(config, **ends), *rest),
    configs,
    endings,
    workspaces,
    texts,
    texts,
)
RECORD = WorkspaceRecord(
    WorkspaceConfig(provider="local", labels={"project": "a", "team": "b"}, environment={"COLOUR": "green"}),
    convert.workspace_from_pb(pb.Workspace(workspace_id="ws-a", provider="local", state=pb.WORKSPACE_STATE_READY)),
    "request",
    "owner",
)


def same(one: WorkspaceRecord, other: WorkspaceRecord) -> bool:
    """Whether two records say the same: sizes and CPUs may be written in other ways."""
    return (
        convert.config_to_pb(one.config) == convert.config_to_pb(other.config)
        and convert.workspace_to_pb(one.info) == convert.workspace_to_pb(other.info)
        and (one.request_id, one.owner) == (other.request_id, other.owner)
    )


@pytest.fixture
async def registry(directory: Path) -> AsyncIterator[SqliteRegistry]:
    async with SqliteRegistry.open(directory / "registry.db") as registry:
        yield registry


@given(records)
def test_every_field_comes_back(record: WorkspaceRecord) -> None:
    assert same(codec.decode(codec.encode(record)), record)


@given(st.lists(records, max_size=4, unique_by=lambda record: record.info.id))
async def test_records_outlive_the_process(written: list[WorkspaceRecord]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "registry.db"
        async with SqliteRegistry.open(path) as first:
            for record in written:
                await first.put(record)
        async with SqliteRegistry.open(path) as second:
            loaded = {record.info.id: record for record in await second.load()}
    assert loaded.keys() == {record.info.id for record in written}
    assert all(same(loaded[record.info.id], record) for record in written)


def test_fields_of_a_newer_version_are_passed_over() -> None:
    value = json.loads(codec.encode(RECORD))
    for part in (value, value["config"], value["workspace"]):
        part["of_a_newer_version"] = {"nested": [1]}
    assert same(codec.decode(json.dumps(value)), RECORD)


@given(st.text() | st.recursive(st.none() | st.integers() | texts, st.lists).map(json.dumps))
def test_other_texts_are_no_records(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  in the words of either parser
        codec.decode(text)


@pytest.mark.parametrize("part", ["config", "workspace", "owner"])
def test_incomplete_records_are_none(part: str) -> None:
    value = json.loads(codec.encode(RECORD))
    del value[part]
    with pytest.raises(ValueError, match="no record of a workspace"):
        codec.decode(json.dumps(value))


@given(records)
def test_sealed_records_are_opened_by_whoever_sealed_them(record: WorkspaceRecord) -> None:
    identity, text = Identity.new(), codec.encode(record)
    assert identity.unseal(identity.seal(text)) == text
    assert Identity.new().unseal(identity.seal(text)) is None


@given(st.data())
def test_altered_seals_are_refused(data: st.DataObject) -> None:
    """Whichever character is another one, in the proof or in the text."""
    identity = Identity.new()
    sealed = identity.seal(codec.encode(RECORD))
    place = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.characters().filter(lambda character: character != sealed[place]))
    assert identity.unseal(sealed[:place] + other + sealed[place + 1 :]) is None
    assert identity.unseal(sealed[:place]) is None


@given(st.text())
def test_forged_seals_are_refused(text: str) -> None:
    assert Identity.new().unseal(text) is None


async def test_row_that_cannot_be_read_hides_no_other(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = directory / "registry.db"
    other = dataclasses.replace(RECORD, info=dataclasses.replace(RECORD.info, id="ws-b"), request_id="other")
    async with SqliteRegistry.open(path) as registry:
        await registry.put(RECORD)
        await registry.put(other)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE workspaces SET record = 'no record' WHERE workspace_id = 'ws-a'")
    db.close()
    async with SqliteRegistry.open(path) as registry:
        assert [record.info.id for record in await registry.load()] == ["ws-b"]
    assert "cannot be read" in caplog.text


async def test_requests(registry: SqliteRegistry) -> None:
    """They are found by their id, for what they asked for, until they are forgotten."""
    assert await registry.find_request("owner", "request", RECORD.config) is None
    await registry.put(RECORD)
    assert await registry.find_request("owner", "request", RECORD.config) == "ws-a"
    reordered = dataclasses.replace(RECORD.config, labels={"team": "b", "project": "a"})
    assert await registry.find_request("owner", "request", reordered) == "ws-a"
    with pytest.raises(InvalidArgumentError, match="was used for another request"):
        await registry.find_request("owner", "request", dataclasses.replace(RECORD.config, lease=7))

    await registry.remove("ws-a", keep_request=True)
    assert await registry.load() == []
    await registry.prune(60)
    assert await registry.find_request("owner", "request", RECORD.config) == "ws-a"
    await registry.prune(-60)
    assert await registry.find_request("owner", "request", RECORD.config) is None


async def test_requests_are_each_owners_own(registry: SqliteRegistry) -> None:
    """The same id with other content, and the end of one of them."""
    info = dataclasses.replace(RECORD.info, id="ws-b")
    other = dataclasses.replace(RECORD, info=info, owner="other", config=dataclasses.replace(RECORD.config, lease=7))
    for record in (RECORD, other):
        await registry.put(record)
    assert await registry.find_request("owner", "request", RECORD.config) == "ws-a"
    assert await registry.find_request("other", "request", other.config) == "ws-b"
    assert await registry.find_request("", "request", RECORD.config) is None
    await registry.remove("ws-a", keep_request=False)
    assert await registry.find_request("owner", "request", RECORD.config) is None
    assert await registry.find_request("other", "request", other.config) == "ws-b"


SCHEMA_1 = """
CREATE TABLE workspaces (workspace_id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
CREATE TABLE requests (
  request_id TEXT PRIMARY KEY, digest TEXT NOT NULL, workspace_id TEXT NOT NULL, ended_at REAL
) STRICT;
CREATE INDEX requests_by_workspace ON requests (workspace_id);
PRAGMA user_version=1;
"""


async def test_file_of_the_first_version(directory: Path) -> None:
    """What was written down before there were owners is nobody's, and found as before."""
    path = directory / "registry.db"
    earlier = dataclasses.replace(RECORD, owner="")
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA_1)
        db.execute("INSERT INTO workspaces VALUES ('ws-a', ?)", (codec.encode(earlier),))
        db.execute("INSERT INTO requests VALUES ('request', ?, 'ws-a', NULL)", (codec.digest(earlier.config, ""),))
        db.execute("INSERT INTO requests VALUES ('ended', 'digest', 'ws-gone', 1.5)")
    db.close()
    for _ in range(2):
        async with SqliteRegistry.open(path) as registry:
            [loaded] = await registry.load()
            assert same(loaded, earlier)
            assert await registry.find_request("", "request", earlier.config) == "ws-a"
            assert await registry.find_request("owner", "request", earlier.config) is None
            await registry.put(dataclasses.replace(RECORD, info=dataclasses.replace(RECORD.info, id="ws-b")))
            assert await registry.find_request("owner", "request", RECORD.config) == "ws-b"
            await registry.remove("ws-b", keep_request=False)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        assert db.execute("SELECT * FROM requests WHERE ended_at = 1.5").fetchall() == [
            ("", "ended", "digest", "ws-gone", 1.5)
        ]
        upgraded = db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    db.close()
    async with SqliteRegistry.open(directory / "new.db"):
        pass
    with sqlite3.connect(directory / "new.db") as db:
        made = db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    db.close()
    assert [(name, words(sql)) for name, sql in upgraded] == [(name, words(sql)) for name, sql in made]


def words(sql: str | None) -> list[str]:
    return re.findall(r"\w+", sql or "")


async def test_request_of_a_failed_creation_is_forgotten(registry: SqliteRegistry) -> None:
    await registry.put(RECORD)
    await registry.remove("ws-a", keep_request=False)
    assert await registry.find_request("owner", "request", RECORD.config) is None


async def test_log_of_many_changes_stays_small(registry: SqliteRegistry, directory: Path) -> None:
    """It lies on a disk that may be small, and is full of it otherwise."""
    for _ in range(600):
        await registry.put(RECORD)
        await registry.remove(RECORD.info.id, keep_request=False)
    log = await asyncio.to_thread((directory / "registry.db-wal").stat)
    assert log.st_size < 2 << 20


async def test_renewal_brings_nothing_back(registry: SqliteRegistry) -> None:
    """One that arrives when the workspace has been removed."""
    await registry.put(RECORD)
    renewed = dataclasses.replace(RECORD, config=dataclasses.replace(RECORD.config, lease=7))
    await registry.renew(renewed)
    [loaded] = await registry.load()
    assert (loaded.config.lease, loaded.info.state) == (7, WorkspaceState.READY)
    await registry.remove("ws-a", keep_request=True)
    await registry.renew(renewed)
    assert await registry.load() == []


async def test_renewed_workspace_is_found_by_its_first_request(registry: SqliteRegistry) -> None:
    """What was asked for is what the client repeats, whatever the lease is by then."""
    await registry.put(RECORD)
    renewed = dataclasses.replace(RECORD, config=dataclasses.replace(RECORD.config, lease=7))
    await registry.renew(renewed)
    await registry.put(renewed)
    assert await registry.find_request("owner", "request", RECORD.config) == "ws-a"


async def test_opening_that_is_cancelled_while_the_database_is_locked_holds_up_nobody(directory: Path) -> None:
    path = directory / "registry.db"
    async with SqliteRegistry.open(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        opening = asyncio.create_task(SqliteRegistry.open(path).__aenter__())
        await asyncio.sleep(0.1)
        opening.cancel()
        began = time.monotonic()
        await asyncio.sleep(0.1)
        assert time.monotonic() - began < 1
    with pytest.raises(asyncio.CancelledError):
        await opening
