"""JSON Lines: output of which each line is a JSON document, or says something else."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from agentic_isolation._lines import Line
from agentic_isolation.errors import InvalidArgumentError

__all__ = ["JsonLine", "parse_line"]

Parse = Literal["jsonl"]
"""Ways to parse lines."""


@dataclass(frozen=True, slots=True)
class JsonLine:
    """A line of output, and the JSON document that it is, if it is one."""

    raw: str
    """The line without its newline; never lost, whatever it holds."""
    value: Any
    """The document: dict, list, str, int, float, bool or None. None also where the line is no JSON."""
    is_json: bool
    """Whether the line is one whole JSON document (RFC 8259)."""

    def __str__(self) -> str:
        return self.raw


def check_parse(parse: Parse | None) -> None:
    """Checks what a user has given as a way to parse lines.

    Raises:
        InvalidArgumentError: It is none.
    """
    if parse not in (None, "jsonl"):
        raise InvalidArgumentError(f"{parse!r} is no way to parse lines; use 'jsonl', or None for text", field="parse")


def json_line(line: Line) -> JsonLine:
    """Returns a line of an output with its JSON document; a piece of a line is none, though it may look like one."""
    return parse_line(line.text) if line.whole else JsonLine(line.text, None, is_json=False)


def parse_line(raw: str) -> JsonLine:
    r"""Returns a line with its JSON document.

    No JSON are blank lines, NaN and Infinity, numbers that Python's float or int do not hold (more than 4,300 digits),
    and documents that are nested deeper than Python's recursion limit allows. A lone surrogate, which an escape like
    \ud800 can name, is replaced by U+FFFD, so that every text in a value can be written as UTF-8.
    """
    try:
        value = json.loads(raw, parse_constant=_refuse, parse_float=_finite)
        if "\\ud" in raw or "\\uD" in raw:
            value = _without_lone_surrogates(value)
    except (ValueError, RecursionError):
        return JsonLine(raw, None, is_json=False)
    return JsonLine(raw, value, is_json=True)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"no float holds {number}")
    return value


def _without_lone_surrogates(value: object) -> object:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.loads(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
    return value
