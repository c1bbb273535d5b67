"""A log that nobody reads: nobody waits for it, and what has no room is counted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator

import pytest

from agentic_isolation_service.cli.log_queue import MAX_WAITING, LogQueue
from tests.support.pipes import fill


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reads, writes = os.pipe()
    yield reads, writes
    os.close(reads)
    os.close(writes)


def log_line(log: LogQueue, words: str) -> None:
    log.handle(logging.makeLogRecord({"msg": words}))


def test_what_nobody_reads_is_dropped_and_told_of(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    fill(writes)
    log = LogQueue(writes, logging.Formatter("%(message)s|%(dropped_lines)s", defaults={"dropped_lines": 0}))
    for number in range(MAX_WAITING + 10):
        log_line(log, f"line {number}")
    began = time.monotonic()
    log.flush()
    assert time.monotonic() - began < 10, "it is not waited for without end"
    written = b""
    while b"line 100|" not in written:
        written += os.read(reads, 4096)
    log_line(log, "the last")
    while not written.endswith(b"the last|0\n"):
        written += os.read(reads, 4096)
    log.close()
    *lines, dropped, _ = [line.split("|") for line in written.lstrip(b"\0").decode().splitlines()]
    assert lines == [[f"line {number}", "0"] for number in range(len(lines))]
    assert dropped == [
        "standard error was not read, and lines of the log were dropped",
        str(MAX_WAITING + 10 - len(lines)),
    ]
