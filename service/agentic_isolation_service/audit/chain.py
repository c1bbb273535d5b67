"""Lines of an audit log, each sealed by a hash that covers it and the hash before it.

A line is a JSON object in ASCII whose last two members are `previous` and `hash`. The hash is the SHA-256 of the line
as it would be without `hash`, byte by byte, so that whoever checks it need not agree with us on how JSON is written.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

VERSION = 1
"""Of the format, in the first entry of each file."""
NOTHING = "0" * 64
"""What the first entry of a chain has for the hash before it."""
_encode = json.JSONEncoder(separators=(",", ":")).encode
_MARK = b',"hash":"'
_SEAL_BYTES = len(_MARK) + 64 + len(b'"}')


class UnsealedError(ValueError):
    """A line has no seal: it is no entry, or only the beginning of one."""


class BrokenSealError(ValueError):
    """A line has a seal that is not its own."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """An entry as it was read."""

    content: Mapping[str, Any]
    sequence: int
    event: str
    previous: str
    digest: str


def seal(content: Mapping[str, object], previous: str) -> tuple[bytes, str]:
    """Returns the line of an entry after the one with the hash `previous`, with its newline, and its own hash."""
    body = _encode({**content, "previous": previous}).encode()
    digest = hashlib.sha256(body).hexdigest()
    return b'%b,"hash":"%b"}\n' % (body[:-1], digest.encode()), digest


def unseal(line: bytes) -> Sealed:
    """Returns the entry of a line without its newline, whose seal is its own.

    Raises:
        UnsealedError: It has no seal.
        BrokenSealError: It has another one's, or what is sealed is no entry.
    """
    seal_of_line = line[-_SEAL_BYTES:]
    if not (seal_of_line.startswith(_MARK) and seal_of_line.endswith(b'"}')):
        raise UnsealedError("it is no entry")
    body = line[:-_SEAL_BYTES] + b"}"
    digest = hashlib.sha256(body).hexdigest()
    if seal_of_line[len(_MARK) : -2] != digest.encode():
        raise BrokenSealError("its content is not what was sealed")
    try:
        content = json.loads(body)
        return Sealed(content, int(content["sequence"]), str(content["event"]), str(content["previous"]), digest)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise BrokenSealError("what is sealed is no entry of an audit log") from None


def timestamp(time_ns: int) -> str:
    """Returns a time since the epoch as RFC 3339 in UTC, in microseconds."""
    # Whole numbers: a float has no room for microseconds of today.
    return f"{_second(time_ns // 1_000_000_000)}.{time_ns // 1000 % 1_000_000:06d}Z"


@functools.lru_cache(maxsize=8)
def _second(time_s: int) -> str:
    return dt.datetime.fromtimestamp(time_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
