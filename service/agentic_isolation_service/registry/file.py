"""The database's file: its schema, its versions, and what is done with one that is damaged."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from pathlib import Path

SCHEMA_VERSION = 2
BUSY_TIMEOUT = 5.0
"""Seconds that somebody else's lock is waited for."""
_CHECKPOINT_AT = 256
"""Pages, of 4 KiB, that the write-ahead log has when it is begun anew: of 1,000, as SQLite has it, most of a small disk
would be its own, for a registry of some KiB."""
_SIDES = ("", "-wal", "-shm")
_SCHEMA = """
CREATE TABLE workspaces (
  workspace_id TEXT PRIMARY KEY,
  record TEXT NOT NULL
) STRICT;
CREATE TABLE requests (
  owner TEXT NOT NULL,
  request_id TEXT NOT NULL,
  digest TEXT NOT NULL,
  workspace_id TEXT NOT NULL,
  ended_at REAL,
  PRIMARY KEY (owner, request_id)
) STRICT;
CREATE INDEX requests_by_workspace ON requests (workspace_id);
"""
_UPGRADES = {
    # Request ids are each owner's own. What was asked for before there were tenants was nobody's.
    1: """
CREATE TABLE requests_of_owners (
  owner TEXT NOT NULL,
  request_id TEXT NOT NULL,
  digest TEXT NOT NULL,
  workspace_id TEXT NOT NULL,
  ended_at REAL,
  PRIMARY KEY (owner, request_id)
) STRICT;
INSERT INTO requests_of_owners SELECT '', request_id, digest, workspace_id, ended_at FROM requests;
DROP TABLE requests;
ALTER TABLE requests_of_owners RENAME TO requests;
CREATE INDEX requests_by_workspace ON requests (workspace_id);
""",
}
"""What makes the next version's schema of each earlier one."""
_log = logging.getLogger(__name__)


def open_database(path: Path | None) -> sqlite3.Connection:
    """Opens the database, and makes it where there is none. A damaged one is put aside, never removed.

    Args:
        path: Its file; None: in memory.

    Raises:
        OSError: It is a newer version's, locked by somebody else, or cannot be opened. Nothing was changed.
    """
    try:
        return _open(path)
    except sqlite3.OperationalError as error:
        raise OSError(f"cannot open the registry {path}: {error}") from error
    except sqlite3.DatabaseError as error:
        if path is None:
            raise
        aside = _put_aside(path)
        _log.error("the registry is damaged (%s) and was put aside as %s; a new one is made", error, aside)
        try:
            return _open(path)
        except sqlite3.Error as again:
            raise OSError(f"cannot make a new registry {path}: {again}") from again


def _open(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        # Its sides get the mode of the file itself.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path or ":memory:", timeout=BUSY_TIMEOUT, check_same_thread=False)
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise OSError(
                f"the registry {path} has schema {version}, and this version knows {SCHEMA_VERSION} at most: "
                "start the newer version of the service, or use another state directory"
            )
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_AT}")
        if version == 0:
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        else:
            for earlier in range(version, SCHEMA_VERSION):
                db.executescript(f"BEGIN IMMEDIATE; {_UPGRADES[earlier]} PRAGMA user_version={earlier + 1}; COMMIT;")
        # A commit that changes nothing finds out now whether the file can be written.
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def _put_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for side in _SIDES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + side).rename(aside.with_name(aside.name + side))
    return aside
