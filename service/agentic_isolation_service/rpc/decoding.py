"""Requests that are no messages: bytes that cannot be decoded are refused as any other bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from agentic_isolation.errors import InvalidArgumentError


class _Undecodable:
    """What came in place of a request."""


def decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Returns what decodes requests and never fails, for `decoded` to refuse what could not be.

    Left to gRPC, the answer would be UNKNOWN, or INTERNAL, and the log would tell of a defect of ours.
    """

    def decode_or_not(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return _Undecodable()

    return decode_or_not


def decoded(request: Any) -> Any:
    """Returns the request of a call, or what yields its requests.

    Raises:
        InvalidArgumentError: It could not be decoded.
    """
    if isinstance(request, _Undecodable):
        raise InvalidArgumentError("the bytes of the request are no message of this RPC")
    return request


def known(request: Any) -> Any:
    """Returns a request; None where it could not be decoded."""
    return None if isinstance(request, _Undecodable) else request
