"""Bytes as they come, put together to lines."""

from __future__ import annotations

MAX_LINE = 16 << 20
"""Bytes after which a line without an end is given out in pieces."""


class LineSplitter:
    """Takes pieces of an output and gives its lines, as text without their newlines; invalid UTF-8 is replaced."""

    def __init__(self) -> None:
        self._partial = bytearray()

    def split(self, data: bytes) -> list[str]:
        """Returns the lines that are complete with these bytes."""
        lines = []
        *complete, rest = data.split(b"\n")
        for line in complete:
            self._partial += line
            lines.append(self._take())
        self._partial += rest
        if len(self._partial) >= MAX_LINE:
            lines.append(self._take())
        return lines

    def rest(self) -> list[str]:
        """Returns the last line where it has no newline."""
        return [self._take()] if self._partial else []

    def _take(self) -> str:
        line = self._partial.decode("utf-8", "replace")
        self._partial.clear()
        return line
