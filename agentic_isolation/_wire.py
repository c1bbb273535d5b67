"""What no message can carry. Checked before a request is made, by client and service alike."""

from __future__ import annotations

import math

from agentic_isolation.errors import InvalidArgumentError


def check_text(text: str, field: str) -> str:
    """Returns `text`.

    Raises:
        InvalidArgumentError: It holds a lone surrogate, which has no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"the character at {error.start} is a lone surrogate and has no UTF-8; bytes go through stdin or a file",
            field=field,
        ) from None
    return text


def check_finite(seconds: float, field: str) -> float:
    """Returns `seconds`.

    Raises:
        InvalidArgumentError: It is infinite or no number.
    """
    if not math.isfinite(seconds):
        raise InvalidArgumentError(f"{seconds} s is no time; leave it out for none", field=field)
    return seconds
