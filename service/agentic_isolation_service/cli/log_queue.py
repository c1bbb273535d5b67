"""The log's way to standard error, which nobody need read: the service never waits for it."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
from logging.handlers import QueueHandler, QueueListener

MAX_WAITING = 5_000
"""Lines that wait for standard error to take them; what is logged beyond them is dropped, and counted."""
_LAST_WORDS = 2.0
"""Seconds that `flush`, and so the program's end, waits for standard error to take what waits."""


class LogQueue(QueueHandler):
    """Hands lines to a thread that writes them.

    Args:
        descriptor: What they are written to.
        formatter: Makes lines of records.
    """

    def __init__(self, descriptor: int, formatter: logging.Formatter) -> None:
        self._lines: queue.Queue[logging.LogRecord] = queue.Queue(MAX_WAITING)
        super().__init__(self._lines)
        self.setFormatter(formatter)
        self._dropped = 0
        self._writer = _Writer(self._lines, descriptor)
        self._writer.start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queues a line where there is room, after one that tells how many had none."""
        try:
            if self._dropped:
                self._lines.put_nowait(self.prepare(_of_dropped(self._dropped)))
                self._dropped = 0
            self._lines.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Waits until all lines are written, for as long as a program that ends has time for."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: self._lines.unfinished_tasks == 0, _LAST_WORDS)

    def close(self) -> None:
        """Ends the thread, as soon as it has written what waits; nobody waits for that."""
        with contextlib.suppress(queue.Full):
            self._writer.enqueue_sentinel()
        super().close()


class _Writer(QueueListener):
    """The thread that writes.

    It needs no handler, whose lock, and no stream, whose buffer the interpreter would wait for at its end.
    """

    def __init__(self, lines: queue.Queue[logging.LogRecord], descriptor: int) -> None:
        super().__init__(lines)
        self._descriptor = descriptor

    def handle(self, record: logging.LogRecord) -> None:
        rest = f"{record.getMessage()}\n".encode(errors="backslashreplace")
        with contextlib.suppress(OSError):  # there is nowhere else to say so
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]


def _of_dropped(count: int) -> logging.LogRecord:
    words = "standard error was not read, and lines of the log were dropped"
    return logging.makeLogRecord(
        {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "msg": words, "dropped_lines": count}
    )
