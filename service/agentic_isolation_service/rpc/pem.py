"""Files in PEM (RFC 7468), which may be looked at while they are written."""

from __future__ import annotations

import re

from agentic_isolation.errors import InvalidArgumentError

_BEGIN = b"-----BEGIN "
_END = re.compile(rb"-----END [^-\r\n]+-----")


def check_whole(data: bytes, field: str) -> None:
    """Checks that each block has its end: those who read certificates pass over one that is cut off.

    Raises:
        InvalidArgumentError: One has none; the error names `field`.
    """
    if data.count(_BEGIN) != len(_END.findall(data)):
        raise InvalidArgumentError("it is not whole: a part of it has a BEGIN line and no END line", field=field)
