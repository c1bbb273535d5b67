"""The registry in SQLite: a write-ahead log, one thread, and a way on when the file is not what it was."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from agentic_isolation._cleanup import finish
from agentic_isolation._nested import nested
from agentic_isolation.errors import InvalidArgumentError, RegistryUnavailableError
from agentic_isolation.models import WorkspaceConfig, WorkspaceState
from agentic_isolation_service.core.records import WorkspaceRecord
from agentic_isolation_service.registry import codec
from agentic_isolation_service.registry.file import open_database

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class SqliteRegistry:
    """A Registry in one file. Made by `open`; all its statements run in one thread of its own, one after the other.

    A commit survives the end of this process at any moment, but not always the machine's (`synchronous=NORMAL`): with
    the machine all guests end too.
    """

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor, name: str) -> None:
        self._connection = connection
        self._thread = thread
        self._name = name

    @classmethod
    @nested
    async def open(cls, path: Path | None) -> AsyncIterator[SqliteRegistry]:
        """Opens the database, made where there is none; None: one in memory, which ends with this process.

        Raises:
            OSError: It is a newer version's, locked by somebody else, or cannot be opened. Nothing was changed.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="registry")
        opened: list[sqlite3.Connection] = []
        try:
            try:
                # To its end, as to wait for the thread below would hold up the loop.
                await finish(_run_in(thread, lambda: opened.append(open_database(path))))
                yield cls(opened[0], thread, str(path or "in memory"))
            finally:
                for connection in opened:
                    await finish(_run_in(thread, connection.close))
        finally:
            thread.shutdown(wait=True)

    async def load(self) -> list[WorkspaceRecord]:
        """Returns all workspaces; a row that cannot be read is left out, and told."""
        rows = await self._run(lambda db: db.execute("SELECT workspace_id, record FROM workspaces").fetchall())
        records = []
        for workspace_id, text in rows:
            try:
                records.append(codec.decode(text))
            except ValueError as error:
                _log.warning("a workspace cannot be read: %s", error, extra={"workspace_id": workspace_id})
        return records

    async def find_request(
        self, owner: str, request_id: str, config: WorkspaceConfig, secrets_fingerprint: str = ""
    ) -> str | None:
        """Returns the id of the workspace that an owner's request has made."""
        query = "SELECT digest, workspace_id FROM requests WHERE owner = ? AND request_id = ?"
        found = await self._run(lambda db: db.execute(query, (owner, request_id)).fetchone())
        if found is None:
            return None
        if found[0] != codec.digest(config, secrets_fingerprint):
            raise InvalidArgumentError(
                f"{request_id!r} was used for another request before; make a new id for each request",
                field="request_id",
            )
        return str(found[1])

    async def put(self, record: WorkspaceRecord) -> None:
        """Writes a workspace down, and once it is READY its request with it, both or none."""
        workspace_id, state = record.info.id, record.info.state
        row = (workspace_id, self.encode(record))
        digest = codec.digest(record.config, record.secrets_fingerprint)
        request = (record.owner, record.request_id, digest, workspace_id)

        def write(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO workspaces VALUES (?, ?)", row)
            if record.request_id and state is WorkspaceState.READY:
                db.execute("INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, NULL)", request)
            elif record.request_id and state is WorkspaceState.CREATING:
                db.execute("DELETE FROM requests WHERE workspace_id = ?", (workspace_id,))

        await self._run(write)

    async def renew(self, record: WorkspaceRecord) -> None:
        """Writes the lease of a workspace down, if that is known."""
        row = (self.encode(record), record.info.id)
        await self._run(lambda db: db.execute("UPDATE workspaces SET record = ? WHERE workspace_id = ?", row))

    async def remove(self, workspace_id: str, *, keep_request: bool) -> None:
        """Forgets a workspace."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM workspaces WHERE workspace_id = ?", (workspace_id,))
            if keep_request:
                db.execute("UPDATE requests SET ended_at = ? WHERE workspace_id = ?", (time.time(), workspace_id))
            else:
                db.execute("DELETE FROM requests WHERE workspace_id = ?", (workspace_id,))

        await self._run(write)

    async def prune(self, window: float) -> None:
        """Forgets old requests."""
        horizon = time.time() - window
        await self._run(lambda db: db.execute("DELETE FROM requests WHERE ended_at < ?", (horizon,)))

    def encode(self, record: WorkspaceRecord) -> str:
        """Returns a workspace as text."""
        return codec.encode(record)

    def decode(self, text: str) -> WorkspaceRecord:
        """Returns the workspace of a text."""
        return codec.decode(text)

    async def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        def transaction() -> _T:
            with self._connection as db:
                return work(db)

        try:
            return await _run_in(self._thread, transaction)
        except sqlite3.Error as error:
            raise RegistryUnavailableError(
                f"the service's registry ({self._name}) cannot be used: {error}; see to its file system, then try again"
            ) from error


async def _run_in(thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)
