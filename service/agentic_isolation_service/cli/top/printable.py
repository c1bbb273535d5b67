"""What a process prints, as plain lines: nothing of it reaches the terminal that it is shown in as a command."""

from __future__ import annotations

import codecs
import re

_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # of colours and the cursor
    r"|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # titles and other texts for the terminal
    r"|[ -/]*[0-OQ-WYZ\\`-~])"
)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]{0,1000}\x1b?|[ -/]*)\Z|\r+\Z")
_NEWLINES = re.compile(r"\r*\n|\r+(?!\n)")


class PrintableText:
    """Turns the bytes of one output into text of printable characters and newlines."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> str:
        """Returns what can be shown; a sequence that is not complete yet waits for its end."""
        text = _SEQUENCE.sub("", self._rest + self._decoder.decode(data))
        self._rest = ""
        # A carriage return may be the first half of a newline.
        unfinished = _UNFINISHED.search(text)
        if unfinished:
            self._rest, text = text[unfinished.start() :], text[: unfinished.start()]
        text = _NEWLINES.sub("\n", text).replace("\t", "    ")
        return "".join(character for character in text if character.isprintable() or character == "\n")
