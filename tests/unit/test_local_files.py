"""Files of this machine that transfers read and write: what may be called how, and that nothing of them stays open."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_isolation._local_files import Target

LONGEST = 255
"""Bytes of a name."""


@pytest.mark.parametrize("character", ["x", "é", "漢", "\U0001f600"])
def test_names_of_any_length_are_written_and_replaced(tmp_path: Path, character: str) -> None:
    path = tmp_path / (character * (LONGEST // len(character.encode())))
    for content in (b"first", b"second"):
        target = Target(path)
        try:
            target.put(content)
            target.flush()
            target.commit(0o644)
        finally:
            target.close()
        assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
