"""The file of an audit log: private, one writer's, repaired after a kill, continued after a restart."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from agentic_isolation_service.audit import file as audit_file
from agentic_isolation_service.audit.chain import NOTHING, VERSION, seal
from agentic_isolation_service.audit.file import AuditFile, own_entry
from agentic_isolation_service.audit.verifying import verify


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def written(path: Path, count: int = 1) -> AuditFile:
    """Opens a log and writes entries into it."""
    file = AuditFile.open(path)
    file.follow()
    file.add([{"time": "now", "event": "call", "number": number} for number in range(count)])
    file.flush()
    return file


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_it_is_private_and_one_writers(path: Path) -> None:
    path.touch(0o644)
    file = written(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(OSError, match="another service writes to"):
        AuditFile.open(path)
    file.close()
    written(path).close()
    assert [entry["sequence"] for entry in entries(path)] == [1, 2, 3]


def test_links_and_what_is_no_file_are_refused(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        AuditFile.open(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="no regular file"):
        AuditFile.open(path)


@pytest.mark.parametrize("before", [b"", b"half of an entr"], ids=["new", "torn"])
def test_file_that_has_no_room_is_named(path: Path, before: bytes) -> None:
    """Where a service cannot begin its log, or say that the last one's was torn."""
    if before:
        written(path).close()
        path.write_bytes(path.read_bytes() + before)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10 if before else 10, hard))
    try:
        with pytest.raises(OSError, match=rf"File too large: '{path}'"):
            AuditFile.open(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    written(path).close()
    assert verify([path]).error is None


@pytest.mark.parametrize("content", [b"precious", b"precious\n", b'{"a": 1}', b"\0\0precious", b"a\nb"])
def test_a_file_that_is_no_log_stays_as_it_is(path: Path, content: bytes) -> None:
    """Its name was a mistake."""
    path.write_bytes(content)
    path.chmod(0o644)
    with pytest.raises(OSError, match="is no audit log"):
        AuditFile.open(path)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (content, 0o644)


@pytest.mark.parametrize("content", [b"", b"\0" * 10, b"{", b'{"sequence":1,"time":"2026', b'{"sequence":57,"ti\0\0'])
def test_a_first_entry_that_was_never_whole_is_written_anew(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    written(path).close()
    assert [entry["event"] for entry in entries(path)] == ["chain", "call"]


@pytest.mark.parametrize("left", [0, 1, 10, 100])
def test_a_torn_line_is_told_and_never_removed(path: Path, left: int) -> None:
    written(path, 3).close()
    *whole, last = path.read_bytes().splitlines(keepends=True)
    fragment = last[:left]
    path.write_bytes(b"".join(whole) + fragment)
    findings = verify([path])
    assert findings.error is None
    assert bool(findings.notes) == bool(left)
    written(path).close()
    assert path.read_bytes().startswith(b"".join(whole) + fragment)
    findings = verify([path])
    assert findings.error is None
    if left:
        (note,) = findings.notes
        assert note.startswith(f"{path}:4: torn")
    assert entries_after(path, fragment) == (["torn", "call"] if left else ["call"])


def entries_after(path: Path, fragment: bytes) -> list[str]:
    lines = path.read_bytes().splitlines()[3 + bool(fragment) :]
    return [json.loads(line)["event"] for line in lines]


def test_a_line_that_lacks_only_its_end_counts(path: Path) -> None:
    written(path, 3).close()
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    written(path).close()
    assert path.read_bytes().startswith(content)
    assert verify([path]).notes == []
    assert [entry["sequence"] for entry in entries(path)] == [1, 2, 3, 4, 5]


def test_a_repair_that_was_torn_is_repaired(path: Path) -> None:
    written(path, 3).close()
    with path.open("ab") as file:
        file.write(b'{"sequence":5,"ti')
    content = path.read_bytes()
    AuditFile.open(path).close()
    for size in range(len(content), len(path.read_bytes()) - 1):
        whole = path.read_bytes()
        path.write_bytes(whole[:size])
        written(path).close()
        findings = verify([path])
        assert findings.error is None
        assert len(findings.notes) == 1
        path.write_bytes(whole)


def test_a_torn_line_that_is_taken_away_is_missed(path: Path) -> None:
    written(path, 3).close()
    with path.open("ab") as file:
        file.write(b'{"sequence":5,"ti')
    AuditFile.open(path).close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if not line.startswith(b'{"sequence":5,"ti\n')))
    error = verify([path]).error
    assert error is not None
    assert "torn line that is not there" in error


def test_a_first_line_that_never_was_whole_is_begun_anew(path: Path) -> None:
    path.write_bytes(b'{"sequence":1,"ti')
    written(path).close()
    assert verify([path]).error is None


@pytest.mark.parametrize("content", [b"hello\n", b"hello\nworld\n", b"{}\n"])
def test_a_file_of_somebody_else_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(OSError, match="no audit log"):
        AuditFile.open(path)
    assert path.read_bytes() == content


def test_an_end_that_was_tampered_with_is_not_gone_on_from(path: Path) -> None:
    written(path, 3).close()
    content = path.read_bytes().replace(b'"number":1', b'"number":7')
    path.write_bytes(content)
    with pytest.raises(OSError, match="tampered"):
        AuditFile.open(path)
    assert path.read_bytes() == content


def test_a_long_file_is_gone_on_from_by_its_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_file, "_TAIL", 4096)
    file = written(path, 300)
    chain = file.chain
    file.close()
    with path.open("ab") as torn:
        torn.write(b"x" * 2000)
    for expected in (303, 304, 305):  # the last two find the torn line at the edge of what they read
        file = written(path)
        assert (file.sequence, file.chain) == (expected, chain)
        file.close()
    assert verify([path]).error is None


def test_a_file_that_somebody_else_writes_to_or_cuts_is_left(path: Path, tmp_path: Path) -> None:
    file = written(path, 3)
    with path.open("ab") as other:
        other.write(b"x")
    with pytest.raises(OSError, match="somebody else has cut it or written to it"):
        file.follow()
    path.rename(tmp_path / "old.jsonl")
    file.follow()
    file.close()
    assert [entry["event"] for entry in entries(path)] == ["chain"]
    assert verify([path], after=str(entries(path)[0]["previous"])).error is None


def test_a_new_file_of_its_name_must_be_empty(path: Path, tmp_path: Path) -> None:
    file = written(path)
    path.rename(tmp_path / "old.jsonl")
    path.write_bytes(b"x")
    with pytest.raises(OSError, match="not empty"):
        file.follow()
    path.write_bytes(b"")
    file.follow()
    file.close()
    assert [entry["sequence"] for entry in entries(path)] == [3]


def test_a_rotated_file_is_gone_on_from_after_a_restart(path: Path, tmp_path: Path) -> None:
    """It begins where another file ends, which need not be there any more."""
    file = written(path, 3)
    chain = file.chain
    old = path.rename(tmp_path / "old.jsonl")
    file.follow()
    file.close()
    file = written(path)
    assert (file.sequence, file.chain) == (6, chain)
    file.close()
    assert verify([old, path]).error is None


@pytest.mark.parametrize(("previous", "sequence"), [(NOTHING, 5), ("0" * 63 + "1", 1)])
def test_a_first_entry_that_contradicts_itself_is_not_gone_on_from(path: Path, previous: str, sequence: int) -> None:
    line, _ = seal({"sequence": sequence, **own_entry("chain", chain="made-up", version=VERSION)}, previous)
    path.write_bytes(line)
    with pytest.raises(OSError, match="tampered"):
        AuditFile.open(path)
