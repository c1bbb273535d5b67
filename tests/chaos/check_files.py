"""Files: a read gives the last acknowledged write, or one that may have come later, and always the whole of it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.findings import Violation
from tests.chaos.history import History
from tests.chaos.journal import Operation


def check_files(history: History) -> Iterator[Violation]:
    """Compares every read with the writes of that file."""
    writes: dict[tuple[str, str], list[Operation]] = {}
    for operation in history.operations:
        if operation.kind == "write":
            writes.setdefault((operation.workspace, operation.asked["path"]), []).append(operation)
    for operation in history.operations:
        if operation.kind != "read" or operation.ended is None:
            continue
        of_file = writes.get((operation.workspace, operation.asked["path"]), [])
        possible = [each for each in of_file if _may_be_seen(each, operation, of_file)]
        if operation.answer is not None:
            if not any(_content(each.asked) == _content(operation.answer) for each in possible):
                yield Violation.about("file", operation, _wrong_content(operation, of_file))
        elif operation.reason == "FILE_NOT_FOUND" and any(_was_done_before(each, operation) for each in of_file):
            yield Violation.about("file", operation, f"{operation.asked['path']} is not there and was written before")


def _may_be_seen(write: Operation, read: Operation, writes: list[Operation]) -> bool:
    """Whether a read may give what was written: begun by then, and not surely replaced before the read began."""
    assert read.ended is not None
    if write.started > read.ended:
        return False
    if not write.acknowledged or write.ended is None:
        return True  # it may be carried out at any later time
    return not any(
        write.ended < other.started and _was_done_before(other, read) for other in writes if other is not write
    )


def _was_done_before(write: Operation, read: Operation) -> bool:
    return write.acknowledged and write.ended is not None and write.ended < read.started


def _wrong_content(read: Operation, writes: list[Operation]) -> str:
    assert read.answer is not None
    same = [each.id for each in writes if _content(each.asked) == _content(read.answer)]
    origin = f"what {same[0]} has written" if same else "what nobody has written"
    return f"{read.asked['path']} has {read.answer['bytes']} bytes, {origin}, and not what was written last"


def _content(record: dict[str, object]) -> tuple[object, object]:
    return record["bytes"], record["sha256"]
