"""Bytes as they come, put together to lines."""

from __future__ import annotations

import codecs
from typing import NamedTuple

_Decoder = codecs.getincrementaldecoder("utf-8")

MAX_LINE = 16 << 20
"""Bytes after which a line without an end is given out in pieces."""


class Line(NamedTuple):
    """A line, or a piece of one that is too long to be given out whole, or of which the rest is lost."""

    text: str
    """Without its newline; invalid UTF-8 is replaced."""
    whole: bool


class LineSplitter:
    """Takes pieces of an output and gives its lines."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._cut = False

    def split(self, data: bytes) -> list[Line]:
        """Returns the lines that are complete with these bytes."""
        lines = []
        *complete, rest = data.split(b"\n")
        for line in complete:
            self._partial += line
            lines.append(self._take(ended=True))
        self._partial += rest
        if len(self._partial) >= MAX_LINE:
            lines.append(self._piece())
        return lines

    def cut(self) -> list[Line]:
        """Returns the line of which the rest is lost, if there is one: output is missing between the bytes."""
        lines = [self._take(ended=False)] if self._partial else []
        self._cut = True
        return lines

    def rest(self) -> list[Line]:
        """Returns the last line where it has no newline."""
        return [self._take(ended=True)] if self._partial else []

    def _piece(self) -> Line:
        """Takes what there is of a line, but for a character of which the rest is to come."""
        decoder = _Decoder("replace")
        piece = Line(decoder.decode(self._partial), whole=False)
        self._partial[:] = decoder.getstate()[0]
        self._cut = True
        return piece

    def _take(self, *, ended: bool) -> Line:
        line = Line(self._partial.decode("utf-8", "replace"), whole=ended and not self._cut)
        self._partial.clear()
        self._cut = not ended
        return line
