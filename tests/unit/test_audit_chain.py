"""The chain of an audit log: what was written is verified, and every way of tampering with it is found."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agentic_isolation_service.audit.chain import NOTHING, seal
from agentic_isolation_service.audit.file import AuditFile
from agentic_isolation_service.audit.verifying import verify

Lines = list[bytes]
COUNT = 6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log with a first line and COUNT entries after it."""
    path = tmp_path / "audit.jsonl"
    file = AuditFile.open(path)
    write(file, COUNT)
    file.close()
    return path


def write(file: AuditFile, count: int) -> None:
    """Writes entries as the log does."""
    file.follow()
    file.add([{"time": "now", "event": "call", "method": f"Method{number}"} for number in range(count)])
    file.flush()


def head_of(path: Path) -> str:
    return str(json.loads(path.read_bytes().splitlines()[-1])["hash"])


def resealed(lines: Lines, start: int) -> Lines:
    """Seals the lines from one on anew, as whoever can write the file can."""
    previous = json.loads(lines[start - 1])["hash"]
    result = lines[:start]
    for sequence, line in enumerate(lines[start:], start=start + 1):
        content = json.loads(line)
        del content["hash"], content["previous"]
        again, previous = seal(content | {"sequence": sequence}, previous)
        result.append(again.rstrip(b"\n"))
    return result


def edited(lines: Lines) -> Lines:
    lines[3] = lines[3].replace(b"Method2", b"Method9")
    return lines


def edited_and_sealed(lines: Lines) -> Lines:
    content = json.loads(edited(lines)[3])
    del content["hash"]
    previous = content.pop("previous")
    lines[3] = seal(content, previous)[0].rstrip(b"\n")
    return lines


def without(number: int) -> Callable[[Lines], Lines]:
    return lambda lines: lines[:number] + lines[number + 1 :]


def with_copy(lines: Lines) -> Lines:
    return [*lines[:4], lines[2], *lines[4:]]


def with_garbage(lines: Lines) -> Lines:
    return [*lines[:4], b'{"event":"call"}', *lines[4:]]


def with_forgery(lines: Lines) -> Lines:
    line, _ = seal({"sequence": 5, "event": "call"}, json.loads(lines[3])["hash"])
    return [*lines[:4], line.rstrip(b"\n"), *lines[4:]]


def swapped(lines: Lines) -> Lines:
    return [*lines[:3], lines[4], lines[3], *lines[5:]]


def empty(_lines: Lines) -> Lines:
    return []


TAMPERING: dict[str, tuple[Callable[[Lines], Lines], int]] = {
    "edit": (edited, 4),
    "edit-and-seal-that-line": (edited_and_sealed, 5),
    "delete": (without(3), 4),
    "delete-the-first": (without(0), 1),
    "insert-a-copy": (with_copy, 5),
    "insert-garbage": (with_garbage, 5),
    "insert-a-forgery": (with_forgery, 6),
    "swap": (swapped, 4),
    "empty": (empty, 1),
}
"""What somebody does to the lines, and the first line that is wrong then."""


def test_a_log_is_verified_and_anybody_can_check_a_hash(path: Path) -> None:
    findings = verify([path], heads=[head_of(path)])
    assert (findings.error, findings.entries, findings.notes) == (None, COUNT + 1, [])
    assert findings.head == head_of(path)
    line = path.read_text().splitlines()[-1]
    body, _, digest = line.rpartition(',"hash":"')
    assert hashlib.sha256((body + "}").encode()).hexdigest() == digest.removesuffix('"}')


@pytest.mark.parametrize(("tamper", "line"), TAMPERING.values(), ids=TAMPERING)
def test_tampering_is_found_and_the_first_wrong_line_is_named(
    path: Path, tamper: Callable[[Lines], Lines], line: int
) -> None:
    changed = tamper(path.read_bytes().splitlines())
    path.write_bytes(b"".join(line + b"\n" for line in changed))
    error = verify([path]).error
    assert error is not None
    assert error.startswith(f"{path}:{line}: "), error


@pytest.mark.parametrize("cut", ["lines", "middle"])
def test_what_is_cut_off_the_end_is_found_by_the_head(path: Path, cut: str) -> None:
    head, content = head_of(path), path.read_bytes()
    path.write_bytes(content[:-30] if cut == "middle" else b"".join(content.splitlines(keepends=True)[:-2]))
    assert verify([path]).error is None, "a chain alone cannot tell"
    error = verify([path], heads=[head]).error
    assert error is not None
    assert head in error


def test_an_end_that_was_made_anew_is_found_by_the_head(path: Path) -> None:
    lines = path.read_bytes().splitlines()
    old, head = json.loads(lines[2])["hash"], head_of(path)
    path.write_bytes(b"".join(line + b"\n" for line in resealed(edited(lines), 3)))
    assert verify([path]).error is None, "a chain alone cannot tell"
    assert verify([path], heads=[old]).error is None, "what lies before is as it was"
    assert verify([path], heads=[old, head]).error is not None


def test_an_older_head_is_found_too(path: Path) -> None:
    head = head_of(path)
    file = AuditFile.open(path)
    write(file, 3)
    file.close()
    assert verify([path], heads=[head]).error is None


def test_a_chain_goes_on_over_files_in_their_order(path: Path, tmp_path: Path) -> None:
    old = tmp_path / "audit.1.jsonl"
    file = AuditFile.open(path)
    path.rename(old)
    write(file, 2)
    file.close()
    head = head_of(old)
    findings = verify([old, path], heads=[head_of(path), head])
    assert (findings.error, findings.entries) == (None, COUNT + 1 + 1 + 2)
    assert verify([path], after=head).error is None
    assert verify([path]).error is not None, "what it goes on from is missing"
    assert verify([path], after=NOTHING[:-1] + "1").error is not None
    assert verify([path, old]).error is not None
    assert verify([old, old]).error is not None


def test_another_chain_is_not_taken_for_the_rest_of_one(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    file = AuditFile.open(other)
    write(file, 1)
    file.close()
    error = verify([path, other]).error
    assert error is not None
    assert error.startswith(f"{other}:1: it begins another chain")


def test_a_log_that_comes_through_a_pipe_is_verified(path: Path) -> None:
    """As what was compressed does: `audit verify <(zcat audit.1.jsonl.gz) audit.jsonl`."""
    reads, writes = os.pipe()
    os.write(writes, path.read_bytes())
    os.close(writes)
    try:
        findings = verify([Path(f"/dev/fd/{reads}")], heads=[head_of(path)])
    finally:
        os.close(reads)
    assert (findings.error, findings.entries) == (None, COUNT + 1)


@pytest.mark.parametrize(
    "forged",
    [b'{"sequence":1e999,"event":"call"', b'{"sequence":2,"event":"call","x":' + b"[" * 100_000 + b"]" * 100_000],
    ids=["number", "depth"],
)
def test_a_forged_entry_that_cannot_be_read_is_named(path: Path, forged: bytes) -> None:
    body = forged + b',"previous":"%b"}' % head_of(path).encode()
    seal = hashlib.sha256(body).hexdigest().encode()
    with path.open("ab") as file:
        file.write(body[:-1] + b',"hash":"' + seal + b'"}\n')
    assert verify([path]).error == f"{path}:{COUNT + 2}: what is sealed is no entry of an audit log"
    with pytest.raises(OSError, match="tampered with"):
        AuditFile.open(path)


def test_a_line_without_end_takes_no_memory(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(8 << 20)
    error = verify([path]).error
    assert error is not None
    assert error.startswith(f"{path}:{COUNT + 2}: ")
