"""The checker finds each kind of violation, and nothing where there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.checker import check
from tests.chaos.history import History, Outage, Reading
from tests.chaos.jobs import Job
from tests.chaos.journal import Operation
from tests.chaos.lines import LineAccount, numbered
from tests.chaos.settings import RETRY_TIMEOUT

WORKSPACE = "ws-1"
COUNT = 5


def operation(kind: str, identity: str, began: float, ended: float | None, **more: Any) -> Operation:
    """An operation of the only client in the only workspace."""
    workspace = "" if kind == "create" else WORKSPACE
    made = Operation(identity, "client", kind, workspace, "runc", more.pop("asked", {}), began, ended)
    return replace(made, **more)


def captured(content: bytes, *, head: int | None = None, tail: int = 0) -> dict[str, Any]:
    """Output as a unary call gives it: the whole, or a head and a tail."""
    head = len(content) if head is None else head
    parts = {"head": content[:head], "tail": content[len(content) - tail :]}
    digests = {name: {"bytes": len(part), "sha256": hashlib.sha256(part).hexdigest()} for name, part in parts.items()}
    return {**digests, "omitted": len(content) - head - tail, "begins": ""}


def executed(
    identity: str, began: float, ended: float, *, job: Job | None = None, stdout: bytes | None = None, **answer: Any
) -> Operation:
    """A command that was acknowledged, rightly unless something else is said."""
    job = job or Job(token=identity, stdout_lines=1)
    right = {
        "exit_code": job.exit_code,
        "timed_out": False,
        "cause": "exited",
        "stdout": captured(job.stdout if stdout is None else stdout),
        "stderr": captured(job.stderr),
    }
    return operation("execute", identity, began, ended, asked=job.record(), answer=right | answer)


def streamed(
    output: bytes, *, stderr: bytes | None = None, ended: bool = True, job: Job | None = None, **answer: Any
) -> Operation:
    """A stream that gave this output."""
    job = job or Job(token="s", stdout_lines=COUNT, stderr_lines=COUNT if stderr is not None else 0)
    record: dict[str, Any] = {"exit_code": job.exit_code, "started": 1, "breaks": [], "lost_bytes": 0}
    for source, content in (("stdout", output), ("stderr", stderr)):
        if content is not None:
            account = LineAccount("s")
            for start in range(0, len(content), 7):
                account.feed(content[start : start + 7])
            record[source] = account.record()
    record |= answer
    if ended:
        return operation("stream", "s", 1, 2, asked=job.record(), answer=record)
    return operation("stream", "s", 1, None, asked=job.record(), progress=record)


def content(text: str) -> dict[str, Any]:
    return {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def write(identity: str, text: str, began: float, ended: float | None) -> Operation:
    answer: dict[str, Any] | None = None if ended is None else {}
    return operation("write", identity, began, ended, asked={"path": "f", **content(text)}, answer=answer)


def read(text: str, began: float, ended: float) -> Operation:
    return operation("read", "r", began, ended, asked={"path": "f"}, answer=content(text))


def log(*lines: str, at: float = 100) -> Reading:
    return Reading(WORKSPACE, at, at + 1, lines, "the engine")


def kinds(
    operations: Sequence[Operation],
    *readings: Reading,
    outages: Sequence[Outage] = (),
    removed: dict[str, float] | None = None,
    killed: dict[str, float] | None = None,
) -> list[str]:
    """The kinds of the violations that are found."""
    history = History(list(operations), list(readings), list(outages), removed or {}, killed or {})
    return [violation.kind for violation in check(history)]


WHOLE = numbered("s", COUNT)


def test_good_run() -> None:
    operations = [executed("a", 1, 2), executed("b", 3, 4), replace(streamed(WHOLE), id="s"), write("w", "x", 1, 2)]
    assert kinds([*operations, read("x", 3, 4)], log("a", "b", "s")) == []


def test_token_twice() -> None:
    assert kinds([executed("a", 1, 2)], log("a", "a")) == ["ran twice"]


def test_unacknowledged_token_twice() -> None:
    asked = Job(token="a", stdout_lines=1).record()
    unanswered = operation("execute", "a", 1, None, asked=asked)
    assert kinds([unanswered], log("a"), killed={"client": 2}) == []
    assert kinds([unanswered], log(), killed={"client": 2}) == []
    assert kinds([unanswered], log("a", "a"), killed={"client": 2}) == ["ran twice"]


def test_missing_token() -> None:
    assert kinds([executed("a", 1, 2)], log()) == ["did not run"]


def test_token_that_is_missing_before_its_command_has_ended() -> None:
    assert kinds([executed("a", 1, 200)], log()) == []


def test_token_that_nobody_asked_for() -> None:
    assert kinds([executed("a", 1, 2)], log("a", "b")) == ["stranger"]


def test_token_of_another_workspace() -> None:
    elsewhere = replace(executed("b", 1, 2), workspace="ws-2")
    assert kinds([executed("a", 1, 2), elsewhere], log("a", "b")) == ["stranger"]


def test_abandoned_command() -> None:
    asked = Job(token="a", stdout_lines=1).record()
    cancelled = operation("abandon", "a", 1, 2, asked=asked, answer={"cancelled": True})
    assert kinds([cancelled], log()) == kinds([cancelled], log("a")) == []
    assert kinds([cancelled], log("a", "a")) == ["ran twice"]
    assert kinds([replace(cancelled, answer={"cancelled": False})], log()) == ["did not run"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"exit_code": 1},
        {"timed_out": True, "exit_code": 124},
        {"stdout": numbered("b", 1)},
        {"stdout": b""},
        {"stdout": numbered("a", 1) * 2},
        {"stderr": captured(b"?")},
    ],
)
def test_wrong_result(wrong: dict[str, Any]) -> None:
    assert kinds([executed("a", 1, 2, **wrong)]) == ["answer"]


def test_output_with_a_part_left_out() -> None:
    job = Job(token="a", stdout_lines=100)
    right = executed("a", 1, 2, job=job)
    assert right.answer is not None
    right.answer["stdout"] = captured(job.stdout, head=10, tail=11)
    assert kinds([right]) == []
    right.answer["stdout"] = captured(numbered("b", 100), head=10, tail=11)
    assert kinds([right]) == ["answer"]
    right.answer["stdout"] = captured(job.stdout[:-1] + b"?", head=10, tail=11)
    assert kinds([right]) == ["answer"]


def test_command_that_timed_out() -> None:
    job = Job(token="a", stdout_lines=1, timeout=3)
    right: dict[str, Any] = {"exit_code": 124, "timed_out": True, "cause": "timeout"}
    assert kinds([executed("a", 1, 5, job=job, **right)], log("a")) == []
    assert kinds([executed("a", 1, 5, job=job, **right)], log()) == ["did not run"]
    assert kinds([executed("a", 1, 5, job=job, stdout=b"", **right)], log()) == []
    assert kinds([executed("a", 1, 5, job=job)], log("a")) == ["answer"]


@pytest.mark.parametrize(
    "output",
    [
        pytest.param(WHOLE.replace(b"s 00000003\n", b""), id="lost line"),
        pytest.param(WHOLE.replace(b"3\n", b"\n"), id="lost byte"),
        pytest.param(WHOLE.replace(b"3\n", b"3"), id="lost newline"),
        pytest.param(WHOLE[:-1], id="lost last newline"),
        pytest.param(WHOLE.replace(b"s 00000003\n", b"s 00000003\ns 00000003\n"), id="doubled line"),
        pytest.param(WHOLE.replace(b"3\n", b"33\n"), id="doubled byte"),
        pytest.param(numbered("s", 2) + b"s 00000004\ns 00000003\ns 00000005\n", id="reordered"),
        pytest.param(numbered("s", COUNT - 1), id="end is missing"),
        pytest.param(b"", id="nothing came"),
        pytest.param(numbered("s", COUNT + 1), id="too much"),
        pytest.param(numbered("s", 2) + numbered("t", 1) + WHOLE[22:], id="of another command"),
    ],
)
def test_wrong_stream(output: bytes) -> None:
    assert kinds([streamed(output)]) == ["stream"]
    assert kinds([streamed(WHOLE, stderr=output)]) == ["stream"]


@pytest.mark.parametrize("wrong", [{"exit_code": 1}, {"started": 2}, {"breaks": [[0, 1]]}, {"lost_bytes": 1}])
def test_wrong_events(wrong: dict[str, Any]) -> None:
    assert kinds([streamed(WHOLE, **wrong)]) == ["stream"]


def test_stream_whose_client_was_killed() -> None:
    killed = {"client": 3.0}
    assert kinds([streamed(WHOLE[:30], ended=False)], killed=killed) == []
    assert kinds([streamed(WHOLE[11:30], ended=False)], killed=killed) == ["stream"]


def test_file_that_was_replaced_before_the_read() -> None:
    assert kinds([write("1", "old", 1, 2), write("2", "new", 3, 4), read("new", 5, 6)]) == []
    assert kinds([write("1", "old", 1, 2), write("2", "new", 3, 4), read("old", 5, 6)]) == ["file"]


def test_file_that_is_replaced_during_the_read() -> None:
    writes = [write("1", "old", 1, 2), write("2", "new", 3, 8)]
    assert kinds([*writes, read("old", 5, 6)]) == kinds([*writes, read("new", 5, 6)]) == []


def test_writes_at_the_same_time() -> None:
    writes = [write("1", "one", 1, 4), write("2", "two", 2, 3)]
    assert kinds([*writes, read("one", 5, 6)]) == kinds([*writes, read("two", 5, 6)]) == []


def test_unacknowledged_write() -> None:
    operations = [write("1", "old", 1, 2), write("2", "new", 3, None)]
    killed = {"client": 4.0}
    assert kinds([*operations, read("old", 5, 6)], killed=killed) == []
    assert kinds([*operations, read("new", 5, 6)], killed=killed) == []


def test_torn_file() -> None:
    assert kinds([write("1", "old", 1, 2), write("2", "new", 3, 4), read("nld", 5, 6)]) == ["file"]


def test_file_of_the_future() -> None:
    assert kinds([write("1", "old", 1, 2), read("new", 3, 4), write("2", "new", 5, 6)]) == ["file"]


def test_file_that_is_not_there() -> None:
    missing = operation("read", "r", 3, 4, asked={"path": "f"}, reason="FILE_NOT_FOUND")
    assert kinds([missing, write("w", "x", 3, 5)]) == []
    assert kinds([write("w", "x", 1, 2), missing]) == ["file"]


@pytest.mark.parametrize("reason", ["WORKSPACE_LOST", "WORKSPACE_NOT_FOUND"])
def test_lost_workspace(reason: str) -> None:
    lost = operation("write", "w", 1, 5, asked={"path": "f", **content("x")}, reason=reason)
    assert kinds([lost], removed={WORKSPACE: 4}) == []
    assert kinds([lost], removed={WORKSPACE: 6}) == ["failed"]
    assert kinds([lost], removed={"ws-2": 4}) == ["failed"]
    assert kinds([lost]) == ["failed"]


def test_reason_that_nothing_explains() -> None:
    failed = operation("destroy", "d", 1, 5, reason="INTERNAL")
    everything = [Outage("engine kill", 0, 200), Outage("blackhole", 0, 200)]
    assert kinds([failed], outages=everything, removed={WORKSPACE: 0}) == ["failed"]


def test_unavailable() -> None:
    """Only where it was that for longer than a client has patience."""
    failed = operation("destroy", "d", 0, 100, reason="UNAVAILABLE")
    half = RETRY_TIMEOUT / 2
    apart = [Outage("blackhole", 0, half), Outage("service kill", half + 1, 2 * half)]
    assert kinds([failed], outages=apart) == ["failed"]
    assert kinds([failed], outages=[*apart, Outage("engine kill", half - 1, half + 2)]) == []


def test_engine_that_cannot_be_reached() -> None:
    """A creation is told so at once; everything else waits."""
    outage = Outage("engine kill", 4, 6)
    failed = operation("create", "c", 5, 5.1, reason="PROVIDER_UNAVAILABLE")
    assert kinds([failed], outages=[outage]) == []
    assert kinds([failed]) == ["failed"]
    assert kinds([replace(failed, kind="destroy")], outages=[outage]) == ["failed"]


def test_operation_without_an_answer() -> None:
    unanswered = operation("destroy", "d", 1, None)
    assert kinds([unanswered]) == ["unanswered"]
    assert kinds([unanswered], killed={"client": 2}) == []
    assert kinds([unanswered], killed={"another": 2}) == ["unanswered"]


def test_creations() -> None:
    first = operation("create", "c1", 1, 2, answer={"workspace": "ws-1", "runtime": "runc"})
    second = operation("create", "c2", 3, 4, answer={"workspace": "ws-1", "runtime": "runc"})
    assert kinds([first]) == []
    assert kinds([first, second]) == ["creation"]
    assert kinds([replace(first, runtime="runsc")]) == ["creation"]


def test_log_that_cannot_be_read() -> None:
    assert kinds([operation("log", "l", 1, 2, answer={"exit_code": 1, "lines": []})]) == ["answer"]
