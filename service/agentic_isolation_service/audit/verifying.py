"""Verification: reads an audit log from its beginning and stops at the first line that is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from agentic_isolation_service.audit.chain import NOTHING, BrokenSealError, Sealed, UnsealedError, unseal

MAX_LINE = 1 << 20
"""Bytes of what may be torn; entries are far shorter."""


class TamperedError(Exception):
    """A line of an audit log is not what was written, or lines before it are missing.

    Attributes:
        line: Its number in its file, from 1.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Verifier:
    """Checks line after line that each follows from the one before.

    Args:
        previous: The hash before the first line; None: the first line is believed what it says of those before it.
    """

    def __init__(self, previous: str | None = NOTHING) -> None:
        self.head = previous
        """Hash of the last entry."""
        self.sequence = 0 if previous == NOTHING else None
        """Number of the last entry; None: not known yet."""
        self.chain: str | None = None
        """Name of the chain; None: no line has told it yet."""
        self.entries = 0
        """Entries that were read."""
        self.notes: list[tuple[int, str]] = []
        """What an auditor should know and no tampering has done, each with its line."""
        self.damage = b""
        """Lines after the last entry that are none: torn, and not told of yet."""
        self._damaged_line = 0

    def read(self, line: bytes, number: int, *, first: bool = False) -> Sealed | None:
        """Reads a line without its newline; `first` where a file begins with it. Returns None for a torn one.

        Raises:
            TamperedError: It is not what was written, or not what was written next.
        """
        try:
            entry = unseal(line)
        except UnsealedError as error:
            if first or len(self.damage) + len(line) > MAX_LINE:
                raise TamperedError(number, str(error)) from None
            self._damaged_line = self._damaged_line if self.damage else number
            self.damage += line + b"\n"
            return None
        except BrokenSealError as error:
            raise TamperedError(number, str(error)) from None
        self._check_place(entry, number, first=first)
        self._check_damage(entry, number)
        self.head, self.sequence = entry.digest, entry.sequence
        self.entries += 1
        return entry

    def end(self) -> None:
        """Says that there are no more lines.

        Raises:
            TamperedError: The last of them are no entries.
        """
        if self.damage:
            raise TamperedError(self._damaged_line, "it is no entry, and no later entry tells that it was torn")

    def _check_place(self, entry: Sealed, number: int, *, first: bool) -> None:
        if first != (entry.event == "chain"):
            raise TamperedError(
                number, "the entry that a file begins with is missing" if first else "it is the beginning of a file"
            )
        if self.head is None and (entry.previous == NOTHING) != (entry.sequence == 1):
            raise TamperedError(number, f"its sequence is {entry.sequence}; a chain begins with 1, after nothing")
        if self.head is not None and entry.previous != self.head:
            if entry.previous == NOTHING:
                raise TamperedError(number, "it begins another chain")
            raise TamperedError(number, self._misplaced(entry))
        if self.sequence is not None and entry.sequence != self.sequence + 1:
            raise TamperedError(number, f"its sequence is {entry.sequence}, after {self.sequence}")
        if first:
            chain = str(entry.content.get("chain"))
            if self.chain not in (None, chain):
                raise TamperedError(number, f"it belongs to the chain {chain}, not to {self.chain}")
            self.chain = chain

    def _misplaced(self, entry: Sealed) -> str:
        if self.sequence is None or self.entries == 0:
            return f"it follows the entry with the hash {entry.previous}, which is not the one that was given"
        return f"it does not follow the line before it: entry {entry.sequence}, where {self.sequence + 1} belongs"

    def _check_damage(self, entry: Sealed, number: int) -> None:
        if entry.event != "torn":
            self.end()
            return
        if self.head is None:
            return  # what was torn lies before what is read
        if not self.damage:
            raise TamperedError(number, "it tells of a torn line that is not there")
        if entry.content.get("sha256") != hashlib.sha256(self.damage).hexdigest():
            raise TamperedError(self._damaged_line, "it is not the torn line that the next entry tells of")
        self.notes.append((self._damaged_line, f"torn, as line {number} tells: the service was killed while it wrote"))
        self.damage = b""


class Findings:
    """What the verification of an audit log's files, one after the other, comes to."""

    def __init__(self, previous: str) -> None:
        self._verifier = Verifier(previous)
        self.entries = 0
        self.head = previous
        self.notes: list[str] = []
        self.error: str | None = None
        """The first line that is wrong and why, as `FILE:LINE: WHY`; None: none is."""

    def read(self, path: Path, wanted: set[str]) -> bool:
        """Reads a file, and takes the hashes that it meets out of `wanted`. Returns whether all is well with it."""
        number = 0
        try:
            with path.open("rb") as file:
                for number, line in enumerate(_lines(file), start=1):
                    if not line.endswith(b"\n"):
                        self._note(path, number, _unfinished(line))
                    elif entry := self._verifier.read(line[:-1], number, first=number == 1):
                        wanted.discard(entry.digest)
                if number == 0:
                    raise TamperedError(1, "the file is empty: the entry that it begins with is missing")
            self._verifier.end()
        except TamperedError as error:
            self.error = f"{path}:{error.line}: {error}"
        for number, note in self._verifier.notes:
            self._note(path, number, note)
        self._verifier.notes.clear()
        self.entries, self.head = self._verifier.entries, self._verifier.head or self.head
        return self.error is None

    def _note(self, path: Path, number: int, note: str) -> None:
        self.notes.append(f"{path}:{number}: {note}")


def verify(paths: Sequence[Path], *, after: str = NOTHING, heads: Iterable[str] = ()) -> Findings:
    """Verifies files that are one log, oldest first.

    Args:
        paths: The files.
        after: The hash that the first of them goes on from.
        heads: Hashes of entries that were kept elsewhere, and have to be there.

    Raises:
        OSError: A file cannot be read.
    """
    findings = Findings(after)
    wanted = set(heads) - {after}
    for path in paths:
        if not findings.read(path, wanted):
            return findings
    if wanted:
        findings.error = (
            f"{paths[-1]}: no entry has the hash {min(wanted)}: what was written up to there was cut off or replaced"
        )
    return findings


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yields lines with their newlines, which only the last one may lack.

    Raises:
        TamperedError: One is longer than any that was written.
    """
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            raise TamperedError(number, "it is longer than any entry")
        yield line


def _unfinished(line: bytes) -> str:
    return f"unfinished after {len(line)} bytes: it is being written, or the service was killed while it wrote"
