"""The audit log: a thread writes what calls queue, in batches, and calls wait until their entry is written."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import AuditUnavailableError
from agentic_isolation_service.audit.chain import timestamp
from agentic_isolation_service.audit.file import AuditFile, own_entry
from agentic_isolation_service.settings.audit import AuditSettings

MAX_QUEUED = 10_000
"""Entries that may wait to be written; then calls wait before they begin."""
_RETRY = 0.5
"""Seconds between two attempts to write."""
_PATIENCE = 5.0
"""Seconds that calls wait for room, a write may take, and a log that ends has for its last entries."""
_LOOK_INTERVAL = 0.1
"""Seconds for which the file is believed to be the one of its name: looking costs more than writing an entry."""
_MAX_BATCH = 1000
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Entry:
    """What is to be written down of a call."""

    event: str
    content: dict[str, object]
    began: Entry | None = None
    """That of the call's beginning, where it has one; queued earlier."""
    sequence: int = 0
    """Its number, once it is sealed."""
    time_ns: int = field(default_factory=time.time_ns)

    def as_dict(self) -> dict[str, object]:
        """Returns it as it is written, without its number."""
        began = {"began": self.began.sequence} if self.began and self.began.sequence else {}  # else that one is lost
        return {"time": timestamp(self.time_ns), "event": self.event, **self.content, **began}


class AuditLog:
    """An open audit log. Its methods are for the event loop's thread.

    Args:
        file: What it writes to.
        settings: How.
    """

    def __init__(self, file: AuditFile, settings: AuditSettings) -> None:
        self._file = file
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._waiters: dict[Entry, asyncio.Future[bool]] = {}
        self._queued = 0
        self._lost = 0
        self._lost_told = 0
        self._troubles: dict[str, str] = {}
        self._progress = asyncio.Event()
        self._busy_since: dict[str, float] = {}
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._write_all, name="audit", daemon=True)]
        if settings.sync_interval > 0:
            self._threads.append(threading.Thread(target=self._sync_all, name="audit-sync", daemon=True))
        self._watch: asyncio.TimerHandle | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: AuditSettings, **about: object) -> AsyncIterator[AuditLog]:
        """Opens the log and writes down that a service starts, and in the end that it stops.

        Args:
            settings: Where and how it is written.
            about: What is written down of the service.

        Raises:
            OSError: Its file cannot be used, see AuditFile.open.
        """
        opened: list[AuditFile] = []
        threads: list[threading.Thread] = []
        try:
            await finish(asyncio.to_thread(lambda: opened.append(AuditFile.open(settings.path))))
            [file] = opened
            log = cls(file, settings)
            threads = log._threads
            try:
                await finish(asyncio.to_thread(log._start))
                if not await log._is_written(Entry("start", dict(about))):
                    raise OSError(f"cannot write {settings.path}: {log.trouble}")
                _log.info("the audit log is open", extra={"path": str(settings.path), "head": file.head})
                log._look()
                yield log
            finally:
                await finish(log._stop())
        finally:
            # A thread that hangs in a write goes on with the descriptor, which must not become another file's.
            if opened and not any(thread.is_alive() for thread in threads):
                await finish(asyncio.to_thread(opened[0].close))

    @property
    def trouble(self) -> str | None:
        """Why it cannot be written for now; None: it can."""
        return next(iter(self._troubles.values()), None)

    async def ready(self) -> None:
        """Returns when a call may begin: what it does can be written down, or need not.

        Raises:
            AuditUnavailableError: It cannot be for now.
        """
        if not self._troubles and self._queued < MAX_QUEUED:
            return
        if not self._settings.fail_closed:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while not self._troubles and self._queued >= MAX_QUEUED:
                    self._progress.clear()
                    await self._progress.wait()
                if not self._troubles:
                    return
        raise AuditUnavailableError(
            f"the service cannot write its audit log, and nothing was done: {self.trouble or 'it is too slow'}; see "
            "to its file system, then try again"
        )

    def note(self, entry: Entry) -> bool:
        """Queues an entry that nobody waits for; returns whether there was room, or must be."""
        if self._queued >= MAX_QUEUED and not self._settings.fail_closed:
            self._lost += 1
            return False
        self._put(entry)
        return True

    async def write(self, entry: Entry) -> None:
        """Queues an entry and returns when it is written, or need not be.

        Raises:
            AuditUnavailableError: It cannot be written for now. It will be, unless the service is killed.
        """
        if not await self._is_written(entry) and self._settings.fail_closed:
            raise AuditUnavailableError(
                "the service cannot write its audit log, so what came of the call is not told: "
                f"{self.trouble or 'it was for a moment'}; see to its file system, then repeat the call, with its "
                "request_id where it has one"
            )

    async def _is_written(self, entry: Entry) -> bool:
        if not self.note(entry) or self._troubles:
            return False
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiters[entry] = waiter
        try:
            return await waiter
        finally:
            del self._waiters[entry]

    def _put(self, entry: Entry) -> None:
        self._queued += 1
        self._queue.put(entry)

    def _written(self, entries: Sequence[Entry]) -> None:
        self._queued -= len(entries)
        self._progress.set()
        for entry in entries:
            if (waiter := self._waiters.get(entry)) is not None and not waiter.done():
                waiter.set_result(True)

    def _cannot(self, work: str, reason: str) -> None:
        """Notes that a thread cannot do its work, and lets those go who wait."""
        if not self._troubles:
            _log.error("the audit log cannot be written: %s", reason, extra={"path": str(self._settings.path)})
        self._troubles[work] = reason
        self._progress.set()
        for waiter in self._waiters.values():
            if not waiter.done():
                waiter.set_result(False)

    def _can(self, work: str) -> None:
        """Notes that a thread has done its work."""
        if self._troubles.pop(work, None) and not self._troubles:
            _log.warning("the audit log can be written again", extra={"path": str(self._settings.path)})
        self._progress.set()

    def _look(self) -> None:
        """Looks, every now and then, whether the disk takes too long."""
        for work, since in list(self._busy_since.items()):
            if time.monotonic() - since > _PATIENCE:
                self._cannot(work, f"its disk has not answered for {_PATIENCE:g} s")
        self._watch = self._loop.call_later(1, self._look)

    def _start(self) -> None:
        for thread in self._threads:
            thread.start()

    async def _stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._put(Entry("stop", {}))
        self._queue.put(None)
        self._closing.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, _PATIENCE)
        if self._queued:
            _log.error("the audit log has ended without its last entries", extra={"entries": self._queued})
        else:
            _log.info("the audit log is closed", extra={"path": str(self._settings.path), "head": self._file.head})

    def _write_all(self) -> None:
        """Writes entries until there is the one that is none; what a thread of its own does."""
        ends = False
        looked = -_LOOK_INTERVAL
        while not ends:
            batch = [self._queue.get()]
            while len(batch) < _MAX_BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            entries = [entry for entry in batch if entry is not None]
            ends = len(entries) < len(batch)
            if time.monotonic() - looked >= _LOOK_INTERVAL:
                if not self._persistently("write", self._file.follow):
                    return
                looked = time.monotonic()
            if lost := self._lost - self._lost_told:
                self._lost_told += lost
                self._file.add([own_entry("lost", entries=lost)])
            # One after the other: an entry tells the number of its call's beginning.
            for entry in entries:
                entry.sequence = self._file.sequence + 1
                self._file.add([entry.as_dict()])
            if not self._persistently("write", self._flush):
                return
            self._tell(self._written, entries)

    def _flush(self) -> None:
        self._file.flush()
        if self._settings.sync_interval == 0:
            self._file.sync()

    def _sync_all(self) -> None:
        """Sees to it that what was written comes to the disk; what a thread of its own does."""
        while not self._closing.wait(self._settings.sync_interval):
            self._persistently("sync", self._file.sync)

    def _persistently(self, name: str, work: Callable[[], None]) -> bool:
        """Works until it is done; returns False where it is given up, because the log ends."""
        failed = False
        while True:
            last = self._closing.is_set()
            begin = self._busy_since[name] = time.monotonic()
            try:
                work()
            except OSError as error:
                failed = True
                self._tell(self._cannot, name, error.strerror or str(error))
                if last:
                    return False
            else:
                if failed or time.monotonic() - begin > _PATIENCE / 2:  # that may have been taken for a failure
                    self._tell(self._can, name)
                return True
            finally:
                self._busy_since.pop(name, None)
            self._closing.wait(_RETRY)

    def _tell(self, what: Callable[..., None], *about: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(what, *about)
