"""Patterns of gitignore(5), matched in linear time: neither they nor the names need be anybody's whom one trusts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from agentic_isolation.errors import InvalidArgumentError

MAX_PATTERN = 4096
"""Characters of one pattern."""
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "\\x21-\\x7e",
    "lower": "a-z",
    "print": "\\x20-\\x7e",
    "punct": "\\x21-\\x2f\\x3a-\\x40\\x5b-\\x60\\x7b-\\x7e",
    "space": "\\s",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}
_STAR = "*"


@dataclass(frozen=True, slots=True)
class _Rule:
    regex: re.Pattern[str]
    negated: bool
    directories_only: bool


class IgnoreRules:
    """Tells what patterns leave out. As for git, the last one that matches decides.

    What lies in a directory that is left out is not to be asked for: it is left out with it.

    Args:
        patterns: In the syntax of gitignore(5).
        field: What they are called in errors.

    Raises:
        InvalidArgumentError: One is malformed or too long.
    """

    def __init__(self, patterns: Sequence[str], field: str) -> None:
        self._rules: list[_Rule] = []
        for position, pattern in enumerate(patterns):
            try:
                rule = _rule(pattern)
            except ValueError as error:
                message = f"{pattern[:100]!r} is no pattern of gitignore(5): {error}"
                raise InvalidArgumentError(message, field=f"{field}[{position}]") from error
            if rule is not None:
                self._rules.insert(0, rule)

    def ignores(self, path: str, *, is_directory: bool) -> bool:
        """Returns whether a path, relative to where the patterns count, is left out."""
        for rule in self._rules:
            if (is_directory or not rule.directories_only) and rule.regex.fullmatch(path):
                return not rule.negated
        return False


def _rule(pattern: str) -> _Rule | None:
    """Returns what a pattern means; None for a blank line or a comment.

    Raises:
        ValueError: It is malformed.
    """
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"it is longer than {MAX_PATTERN} characters")
    pattern = pattern.rstrip("\r\n")
    while pattern.endswith(" ") and not _is_escaped(pattern, len(pattern) - 1):
        pattern = pattern[:-1]
    if not pattern or pattern.startswith("#"):
        return None
    negated = pattern.startswith("!")
    pattern = pattern[1:] if negated else pattern
    directories_only = pattern.endswith("/")
    pattern = pattern[:-1] if directories_only else pattern
    anchored = "/" in pattern
    pattern = pattern.removeprefix("/")
    if not pattern:
        raise ValueError("it names nothing")
    segments = pattern.split("/")
    return _Rule(re.compile(_path(segments if anchored else ["**", *segments]), re.DOTALL), negated, directories_only)


def _is_escaped(text: str, position: int) -> bool:
    return (position - len(text[:position].rstrip("\\"))) % 2 == 1


def _path(segments: list[str]) -> str:
    """Returns the expression of a path. Its groups are atomic wherever the first way to match is as good as any."""
    inside = len(segments) > 1 and _is_any_depth(segments[-1])
    runs: list[list[str]] = [[]]
    for segment in segments[:-1] if inside else segments:
        if _is_any_depth(segment):
            runs.append([])
        else:
            runs[-1].append(_segment(segment))
    first, *others = ("/".join(run) for run in runs)
    others = [run for run in others if run]
    expression = first + ("/" if first and others else "")
    for position, run in enumerate(others):
        last = position == len(others) - 1
        end = "" if last and not inside else "/"
        # The last run is to be found at the end; of the others the first place is as good as any.
        found = f"(?:[^/]+/)*?{run}{end}"
        expression += f"(?:{found})" if last and not inside else f"(?>{found})"
    if inside:
        expression += ".+" if others or not first else "/.+"
    elif not first and not others:
        expression += ".+"
    return expression


def _is_any_depth(segment: str) -> bool:
    return len(segment) > 1 and not segment.strip("*")


def _segment(segment: str) -> str:
    """Returns the expression of a name, or of a part of one between slashes."""
    chunks = [""]
    for token in _tokens(segment):
        if token == _STAR:
            chunks.append("")
        else:
            chunks[-1] += token
    first, *others = chunks
    if not others:
        return first or "(?!)"  # nothing is called so
    *middle, last = others
    middle = [chunk for chunk in middle if chunk]
    some = "(?=[^/])" if not first else ""
    return f"(?>{some}{first}{''.join(f'(?>[^/]*?{chunk})' for chunk in middle)}[^/]*{last}(?![^/]))"


def _tokens(segment: str) -> list[str]:
    tokens = []
    position = 0
    while position < len(segment):
        character = segment[position]
        position += 1
        if character == "*":
            tokens.append(_STAR)
        elif character == "?":
            tokens.append("[^/]")
        elif character == "[":
            token, position = _bracket(segment, position)
            tokens.append(token)
        elif character == "\\":
            if position == len(segment):
                raise ValueError("it ends with a lone backslash")
            tokens.append(re.escape(segment[position]))
            position += 1
        else:
            tokens.append(re.escape(character))
    return tokens


def _bracket(segment: str, position: int) -> tuple[str, int]:
    """Returns the expression of a bracket whose "[" is before a position, and where it ends."""
    start = position
    negated = segment[position : position + 1] in ("!", "^")
    position += negated
    members: list[str] = []
    first = True
    while True:
        if position >= len(segment):
            raise ValueError(f"{segment[start - 1 :]!r} is not closed")
        if segment[position] == "]" and not first:
            break
        first = False
        if found := re.compile(r"\[:([a-z]+):\]").match(segment, position):
            if found[1] not in _CLASSES:
                raise ValueError(f"there is no class {found[0]!r}")
            members.append(_CLASSES[found[1]])
            position = found.end()
            continue
        low, position = _member(segment, position)
        if segment[position : position + 1] == "-" and segment[position + 1 : position + 2] not in ("", "]"):
            high, position = _member(segment, position + 1)
            if low <= high:  # else it holds its first character only
                members.append(f"{re.escape(low)}-{re.escape(high)}")
        members.append(re.escape(low))
    inner = "".join(members)
    if not inner:
        return ("[^/]" if negated else "(?!)"), position + 1
    return (f"(?!/)[^{inner}]" if negated else f"(?!/)[{inner}]"), position + 1


def _member(segment: str, position: int) -> tuple[str, int]:
    """Returns a character of a bracket, and where the next one is."""
    position += segment[position] == "\\"
    if position >= len(segment):
        raise ValueError("it ends with a lone backslash")
    return segment[position], position + 1
