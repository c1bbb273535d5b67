"""Commands: each runs once, and its client is told what it did."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.chaos.findings import Violation
from tests.chaos.history import History, Reading
from tests.chaos.jobs import Job
from tests.chaos.journal import Operation
from tests.chaos.lines import defect

_COMMANDS = frozenset({"execute", "stream", "abandon"})
_TIMEOUT_EXIT_CODE = 124


def check_answers(history: History) -> Iterator[Violation]:
    """Answers are those of exactly that command, and streams have every line once, in order, to the end."""
    for operation in history.operations:
        words = None
        if operation.kind == "execute" and operation.answer is not None:
            lost = operation.answer["cause"] == "workspace_lost"
            if not (lost and operation.workspace in history.removed):
                words = _wrong_result(Job.from_record(operation.asked), operation.answer)
        elif operation.kind == "stream":
            words = _wrong_stream(operation)
        elif operation.kind == "log" and operation.answer is not None and operation.answer["exit_code"] != 0:
            words = f"the log of all commands cannot be read: exit code {operation.answer['exit_code']}"
        if words:
            yield Violation.about("stream" if operation.kind == "stream" else "answer", operation, words)


def check_logs(history: History) -> Iterator[Violation]:
    """What was acknowledged has run once, what was not at most once, and nothing else has run."""
    by_workspace: dict[str, list[Operation]] = {}
    for operation in history.operations:
        if operation.kind in _COMMANDS:
            by_workspace.setdefault(operation.workspace, []).append(operation)
    for reading in history.readings:
        asked = [each for each in by_workspace.get(reading.workspace, ()) if each.started < reading.ended]
        yield from _check_log(reading, asked)


def _check_log(reading: Reading, asked: list[Operation]) -> Iterator[Violation]:
    found = Counter(reading.lines)
    where = f"in the log that {reading.reader} has read"
    for operation in asked:
        times = found.pop(operation.id, 0)
        if times > 1:
            yield Violation.about("ran twice", operation, f"it is there {times} times {where}", at=reading.ended)
        if times == 0 and _must_have_run(operation, reading.started):
            yield Violation.about("did not run", operation, f"it was acknowledged and is not {where}", at=reading.ended)
    for line, times in found.items():
        words = f"{line!r} is there {times} times {where} of {reading.workspace}, and nobody has asked for that"
        yield Violation("stranger", words, reading.ended)


def _must_have_run(operation: Operation, by: float) -> bool:
    if operation.answer is None or operation.ended is None or operation.ended >= by:
        return False
    if operation.kind == "abandon":
        return not operation.answer["cancelled"]
    if operation.kind == "execute" and operation.answer["cause"] == "timeout":
        return bool(operation.answer["stdout"]["head"]["bytes"])
    return operation.answer.get("cause") != "workspace_lost"


def _wrong_result(job: Job, answer: dict[str, Any]) -> str | None:
    """Says what is wrong with the result of a command."""
    timing_out = job.timeout is not None
    exit_code = _TIMEOUT_EXIT_CODE if timing_out else job.exit_code
    if (answer["exit_code"], answer["timed_out"]) != (exit_code, timing_out):
        return (
            f"exit code {answer['exit_code']}, timed_out {answer['timed_out']}, cause {answer['cause']}; "
            f"it should be {exit_code}, {timing_out}"
        )
    for source, expected in (("stdout", job.stdout), ("stderr", job.stderr)):
        captured = answer[source]
        if timing_out and not captured["head"]["bytes"]:
            continue  # the machine was too busy for it to get that far
        if words := _wrong_output(captured, expected):
            return f"{source} {words}"
    return None


def _wrong_output(captured: dict[str, Any], expected: bytes) -> str | None:
    head, tail, omitted = captured["head"], captured["tail"], captured["omitted"]
    total = head["bytes"] + omitted + tail["bytes"]
    if total != len(expected):
        return f"has {total} bytes rather than {len(expected)}; it begins with {captured['begins']!r}"
    if _digest(expected[: head["bytes"]]) != head["sha256"]:
        return f"is not the command's; it begins with {captured['begins']!r}"
    if _digest(expected[total - tail["bytes"] :]) != tail["sha256"]:
        return "does not end as the command's does"
    return None


def _wrong_stream(operation: Operation) -> str | None:
    """Says what is wrong with what has come of a stream; one that has not ended must have a beginning of it."""
    job = Job.from_record(operation.asked)
    whole = operation.answer is not None
    came = operation.answer or operation.progress
    if came is None:
        return None
    for source, count in (("stdout", job.stdout_lines), ("stderr", job.stderr_lines)):
        if source in came and (words := defect(came[source], count, whole=whole)):
            return f"{source}: {words}"
    if came.get("breaks"):
        expected, got = came["breaks"][0]
        return f"the offset {got} came where {expected} was due"
    if came.get("lost_bytes"):
        return f"{came['lost_bytes']} bytes are told to be lost"
    if came.get("started", 1) != 1:
        return f"it was told to have started {came['started']} times"
    if whole and came["exit_code"] != job.exit_code:
        return f"exit code {came['exit_code']} rather than {job.exit_code}"
    return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
