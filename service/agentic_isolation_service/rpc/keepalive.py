"""How often a stream gives a sign of life."""

from __future__ import annotations

from agentic_isolation import _convert as convert
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.core import validation

DEFAULT_KEEPALIVE = 30.0
"""Seconds."""


def keepalive_of(
    request: pb.StreamRequest | pb.AttachOpen | pb.WatchDirectoryRequest, field: str = "keepalive_interval"
) -> float:
    """Returns the seconds after which a call gives a sign of life.

    Raises:
        InvalidArgumentError: They are out of range.
    """
    if not request.HasField("keepalive_interval"):
        return DEFAULT_KEEPALIVE
    keepalive = convert.asked_seconds(request.keepalive_interval, field)
    validation.check_seconds(keepalive, field, 1, validation.MAX_LINGER)
    return keepalive
