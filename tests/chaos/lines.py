"""Numbered lines: output whose every byte is known from its position, and a short account of what came of it."""

from __future__ import annotations

from typing import Any

_MOST_STRAYS = 20
_LONGEST_STRAY = 200


def numbered(token: str, count: int) -> bytes:
    """Returns the lines from 1 to `count` of a token, as `seq -f 'TOKEN %08.0f' 1 COUNT` prints them."""
    return b"".join(b"%s %08d\n" % (token.encode(), number) for number in range(1, count + 1))


class LineAccount:
    """Takes output piece by piece and keeps which lines came, in order of arrival, as runs of consecutive numbers.

    Nothing that it is fed goes unaccounted: what is no line of the token is a stray.
    """

    def __init__(self, token: str) -> None:
        self._prefix = token.encode() + b" "
        self._runs: list[list[int]] = []
        self._strays: list[str] = []
        self._stray_count = 0
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Takes the next piece of output, cut anywhere."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)

    def record(self) -> dict[str, Any]:
        """Returns the account for a journal: runs, strays, and what came after the last newline."""
        rest = self._rest[:_LONGEST_STRAY].decode(errors="replace")
        return {
            "runs": [list(run) for run in self._runs],
            "strays": list(self._strays),
            "stray_count": self._stray_count,
            "rest": rest,
        }

    def _take(self, line: bytes) -> None:
        digits = line.removeprefix(self._prefix)
        if digits is line or len(digits) != 8 or not digits.isdigit():
            self._stray_count += 1
            if len(self._strays) < _MOST_STRAYS:
                self._strays.append(line[:_LONGEST_STRAY].decode(errors="replace"))
            return
        number = int(digits)
        if self._runs and self._runs[-1][1] + 1 == number:
            self._runs[-1][1] = number
        else:
            self._runs.append([number, number])


def defect(record: dict[str, Any], count: int, *, whole: bool) -> str | None:
    """Says what is wrong with an account of `count` lines; None where nothing is.

    Args:
        record: As `LineAccount.record` gives it.
        count: How many lines there should be.
        whole: Whether they should all be there; else a beginning of them is fine.
    """
    if record["stray_count"]:
        return f"{record['stray_count']} lines are not the command's, the first: {record['strays'][0]!r}"
    expected = 1
    for first, last in record["runs"]:
        if first > expected:
            return f"lines {expected} to {first - 1} did not come before line {first}"
        if first < expected:
            return f"line {first} came after line {expected - 1}"
        expected = last + 1
    if expected - 1 > count:
        return f"lines {count + 1} to {expected - 1} were never printed"
    if not whole:
        return None
    if record["rest"]:
        return f"the last line is not whole: {record['rest']!r}"
    if expected <= count:
        return f"lines {expected} to {count} are missing at the end"
    return None
