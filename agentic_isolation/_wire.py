"""What no message can carry. Checked before a request is made, by client and service alike."""

from __future__ import annotations

import math
from typing import TypeVar

from agentic_isolation.errors import InvalidArgumentError

_Number = TypeVar("_Number", int, int | None)
_MAX_DURATION = 315_576_000_000
"""Seconds, as google.protobuf.Duration says."""


def check_text(text: str, field: str) -> str:
    """Returns `text`.

    Raises:
        InvalidArgumentError: It holds a lone surrogate, which has no UTF-8.
    """
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
        raise InvalidArgumentError(f"give str or bytes, not {type(content).__name__}", field=field)
    return bytes(content)


def check_finite(seconds: float, field: str) -> float:
    """Returns `seconds`.

    Raises:
        InvalidArgumentError: It is infinite or no number.
    """
    if not math.isfinite(seconds):
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
        InvalidArgumentError: It is less than `least` or needs more bits.
    """
    if number is not None and not least <= number < 1 << bits:
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
