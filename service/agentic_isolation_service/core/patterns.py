"""Patterns of names, for identities and images: `*` is anything within a part of a name, `**` at its end anything."""

from __future__ import annotations

import re

from agentic_isolation.errors import InvalidArgumentError

_TOKEN = re.compile(r"\*\*|\*|[^*]", re.DOTALL)
_PART, _REST = "*", "**"


class Pattern:
    """A name, with `*` for any characters but those that separate its parts, and `**` at the end for any at all.

    Args:
        text: How it is written.
        separators: The characters that `*` does not stand for.

    Raises:
        InvalidArgumentError: It is empty, or has `**` before its end.
    """

    def __init__(self, text: str, *, separators: str = "/") -> None:
        self.text = text
        self._separators = separators
        self._tokens = _TOKEN.findall(text)
        self._prefix = text.partition("*")[0]
        if not text:
            raise InvalidArgumentError("it is empty", field="")
        if _REST in self._tokens[:-1]:
            raise InvalidArgumentError(f"{text!r} has ** before its end; write * for a part of a name", field="")
        self._matcher = self._compiled()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and (self.text, self._separators) == (other.text, other._separators)

    def __hash__(self) -> int:
        return hash(self.text)

    @property
    def is_exact(self) -> bool:
        """Whether it stands for one name only."""
        return "*" not in self.text

    def matches(self, name: str) -> bool:
        """Returns whether it stands for a name, in a time that grows no faster than the name."""
        return self._matcher.fullmatch(name) is not None

    def overlaps(self, other: Pattern) -> bool:
        """Returns whether there may be a name that both stand for."""
        shared = min(len(self._prefix), len(other._prefix))
        if self._prefix[:shared] != other._prefix[:shared]:
            return False
        own, others = self._tokens, other._tokens
        seen: set[tuple[int, int]] = set()
        todo = [(0, 0)]
        while todo:
            place = todo.pop()
            if place in seen:
                continue
            seen.add(place)
            one, two = place
            if one == len(own) and two == len(others):
                return True
            one_is_wild, two_is_wild = _is_wild(own, one), _is_wild(others, two)
            if one_is_wild:
                todo.append((one + 1, two))
            if two_is_wild:
                todo.append((one, two + 1))
            if one < len(own) and two < len(others) and self._share(own[one], others[two]):
                todo.append((one + (not one_is_wild), two + (not two_is_wild)))
        return False

    def _share(self, one: str, two: str) -> bool:
        """Returns whether two tokens may stand for the same character."""
        if _REST in (one, two):
            return True
        if _PART in (one, two):
            return not {one, two} & set(self._separators)
        return one == two

    def _compiled(self) -> re.Pattern[str]:
        """Returns the expression. What stands after a `*` is taken where it is found first.

        That is never wrong: what ends a part cannot be within what `*` stands for. And nothing is tried twice.
        """
        is_open = self._tokens[-1] == _REST
        first, *chunks = self.text.removesuffix(_REST if is_open else "").split(_PART)
        part = f"[^{re.escape(self._separators)}]"
        expression = re.escape(first)
        for position, chunk in enumerate(chunks, 1):
            if position == len(chunks) and not is_open:
                expression += f"{part}*{re.escape(chunk)}"
            else:
                expression += f"(?>{part}*?{re.escape(chunk)})"
        return re.compile(expression + (".*" if is_open else ""), re.DOTALL)


def _is_wild(tokens: list[str], position: int) -> bool:
    return position < len(tokens) and tokens[position] in (_PART, _REST)
