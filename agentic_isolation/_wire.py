"""What no message can carry. Checked before a request is made, by client and service alike."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import TypeVar

from agentic_isolation.errors import InvalidArgumentError

_T = TypeVar("_T")
_Number = TypeVar("_Number", int, int | None)
_MAX_DURATION = 315_576_000_000
"""Seconds, as google.protobuf.Duration says."""


def wrong_type(value: object, field: str, wanted: str) -> InvalidArgumentError:
    """Returns the error for a value of another type. It does not tell the value, which may be a secret."""
    return InvalidArgumentError(f"give {wanted}, not {type(value).__name__}", field=field)


def check_type(value: _T, field: str, wanted: type[_T]) -> _T:
    """Returns `value`. Raises InvalidArgumentError where it is none of a type."""
    if not isinstance(value, wanted):
        raise wrong_type(value, field, wanted.__name__)
    return value


def check_text(text: str, field: str) -> str:
    """Returns `text`.

    Raises:
        InvalidArgumentError: It is no str, or holds a lone surrogate, which has no UTF-8.
    """
    if not isinstance(text, str):
        raise wrong_type(text, field, "str")
    _encoded(text, field)
    return text


def check_bytes(content: str | bytes | bytearray | memoryview, field: str) -> bytes:
    """Returns `content` as bytes, text as UTF-8.

    Raises:
        InvalidArgumentError: It is neither text nor bytes, or text that holds a lone surrogate.
    """
    if isinstance(content, str):
        return _encoded(content, field)
    if not isinstance(content, bytes | bytearray | memoryview):
        raise wrong_type(content, field, "str or bytes")
    return bytes(content)


def check_series(items: Iterable[_T], field: str, of: str = "str") -> Iterable[_T]:
    """Returns `items`, which are still to be checked.

    Raises:
        InvalidArgumentError: They are none, or a single text or bytes, of which every character would be one.
    """
    if isinstance(items, str | bytes | bytearray | memoryview) or not isinstance(items, Iterable):
        raise wrong_type(items, field, f"a list of {of}")
    return items


def check_mapping(texts: Mapping[str, str], field: str) -> Mapping[str, str]:
    """Returns `texts`, which are still to be checked. Raises InvalidArgumentError where they are no mapping."""
    if not isinstance(texts, Mapping):
        raise wrong_type(texts, field, "a dict of str")
    return texts


def is_finite(seconds: object, field: str) -> bool:
    """Returns whether a time is one. Raises InvalidArgumentError where it is of no type of numbers."""
    if not isinstance(seconds, Real):
        raise wrong_type(seconds, field, "seconds as a number")
    try:
        return math.isfinite(seconds)
    except OverflowError:  # of an int that no float can be
        return False


def check_finite(seconds: float, field: str) -> float:
    """Returns `seconds`.

    Raises:
        InvalidArgumentError: It is infinite or no number.
    """
    if not is_finite(seconds, field):
        raise InvalidArgumentError(f"{seconds} s is no time; leave it out for none", field=field)
    return seconds


def check_seconds(seconds: float, field: str) -> float:
    """Returns `seconds`.

    Raises:
        InvalidArgumentError: It is infinite, no number, or more than a Duration holds.
    """
    if abs(check_finite(seconds, field)) > _MAX_DURATION:
        raise InvalidArgumentError(f"{seconds:g} s is more than 10,000 years; leave it out for no limit", field=field)
    return seconds


def check_unsigned(number: _Number, field: str, *, bits: int, least: int = 0) -> _Number:
    """Returns `number`.

    Raises:
        InvalidArgumentError: It is no int, less than `least`, or needs more bits.
    """
    if number is None:
        return number
    try:
        number = operator.index(number)
    except TypeError:
        raise wrong_type(number, field, "int") from None
    if not least <= number < 1 << bits:
        raise InvalidArgumentError(f"{number} is not from {least} to {(1 << bits) - 1}", field=field)
    return number


def _encoded(text: str, field: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"the character at {error.start} is a lone surrogate and has no UTF-8; bytes go through stdin or a file",
            field=field,
        ) from None
