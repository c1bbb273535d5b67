"""Tables of the configuration file: which settings they may have, of which types, and how errors name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from agentic_isolation.errors import InvalidArgumentError

_T = TypeVar("_T")
Types = tuple[type, ...]
"""The types that a setting may have."""
_WORDS = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    dict: "a table",
    list: "an array",
    datetime: "a date and time",
}


def checked(table: object, known: Mapping[str, Types]) -> dict[str, Any]:
    """Returns a table's settings, each of which is known and of a type that it may have.

    Raises:
        InvalidArgumentError: It is no table, or a setting is unknown, of another type or a string that holds NUL; the
            error names it.
    """
    if not isinstance(table, dict):
        raise InvalidArgumentError("it is no table", field="")
    for name, value in table.items():
        if name not in known:
            raise InvalidArgumentError(f"there is no such setting; there are {', '.join(known)}", field=name)
        # A bool is an int for isinstance.
        if type(value) not in known[name]:
            words = " or ".join(_WORDS[kind] for kind in known[name])
            raise InvalidArgumentError(f"{value!r} is not {words}", field=name)
        if isinstance(value, str) and "\0" in value:
            raise InvalidArgumentError(f"{value!r} holds a NUL character, which nothing here can", field=name)
    return dict(table)


def within(place: str, make: Callable[[], _T]) -> _T:
    """Returns what `make` makes; the errors that it raises name their field within a place."""
    try:
        return make()
    except InvalidArgumentError as error:
        field = f"{place}.{error.field}" if error.field else place
        raise InvalidArgumentError(error.message, field=field) from None


def tables(content: object, name: str) -> list[tuple[str, object]]:
    """Returns the tables of an array `[[name]]`, each with its place, as `name[0]`.

    Raises:
        InvalidArgumentError: It is no array.
    """
    if not isinstance(content, list):
        raise InvalidArgumentError(f"it is one table; write [[{name}]] for each {name}", field=name)
    return [(f"{name}[{position}]", table) for position, table in enumerate(content)]


def strings(content: Sequence[object], name: str) -> tuple[str, ...]:
    """Returns an array of strings.

    Raises:
        InvalidArgumentError: One of them is none; the error names it, as `name[0]`.
    """
    texts = []
    for position, text in enumerate(content):
        if not isinstance(text, str):
            raise InvalidArgumentError(f"{text!r} is not a string", field=f"{name}[{position}]")
        texts.append(text)
    return tuple(texts)
