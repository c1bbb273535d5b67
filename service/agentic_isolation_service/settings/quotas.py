"""`[quota]`, `[tenant_quota]` and the `quota` of a `[[tenant]]`: how much may be had at a time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.models import ResourceLimits, parse_size
from agentic_isolation_service.core.quotas import Quota, Quotas
from agentic_isolation_service.settings.tables import Types, checked, within

_QUOTA: dict[str, Types] = {
    "workspaces": (int,),
    "memory": (int, str),
    "cpu": (int, float, str),
    "creates_per_minute": (int,),
    "commands": (int,),
    "streams": (int,),
    "output_per_second": (int, str),
    "message": (int, str),
}
_LEAST_OUTPUT = 64 << 10
"""Bytes per second: less would hold one piece of output back for longer than a keepalive takes."""
_LEAST_MESSAGE = 1 << 20
"""Bytes: the pieces of files that the Python client sends have up to half of that."""
_MOST_MESSAGE = 4 << 20
"""Bytes that the service takes from anybody."""


def quotas_of(service: object, default: object, of_tenants: Mapping[str, object]) -> Quotas:
    """Returns all quotas.

    Args:
        service: The table `[quota]`.
        default: The table `[tenant_quota]`.
        of_tenants: The tables `quota` of tenants, by their names.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it.
    """
    return Quotas(
        service=within("quota", partial(quota_of, service)),
        default=within("tenant_quota", partial(quota_of, default)),
        of_tenants={
            name: within(f"tenant[{name!r}].quota", partial(quota_of, table)) for name, table in of_tenants.items()
        },
    )


def quota_of(table: object) -> Quota:
    """Returns the quota that a table says.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it.
    """
    settings = checked(table, _QUOTA)
    for name in ("workspaces", "creates_per_minute", "commands", "streams"):
        if settings.get(name, 0) < 0:
            raise InvalidArgumentError(f"{settings[name]} is not 0 or more", field=name)
    return Quota(
        workspaces=settings.get("workspaces"),
        memory_bytes=_size(settings, "memory", least=0),
        cpu_millis=_cpu_millis(settings),
        creates_per_minute=settings.get("creates_per_minute"),
        commands=settings.get("commands"),
        streams=settings.get("streams"),
        output_bytes_per_second=_size(settings, "output_per_second", least=_LEAST_OUTPUT),
        message_bytes=_size(settings, "message", least=_LEAST_MESSAGE, most=_MOST_MESSAGE),
    )


def _size(settings: Mapping[str, int | str], name: str, *, least: int, most: int = (1 << 63) - 1) -> int | None:
    if name not in settings:
        return None
    size = parse_size(settings[name], field=name)
    if not least <= size <= most:
        raise InvalidArgumentError(f"{size} bytes are not from {least} to {most}", field=name)
    return size


def _cpu_millis(settings: Mapping[str, float | str]) -> int | None:
    try:
        millis = ResourceLimits(cpu=settings.get("cpu")).cpu_millis
    except InvalidArgumentError as error:
        raise InvalidArgumentError(error.message, field="cpu") from None
    if millis is not None and millis < 0:
        raise InvalidArgumentError(f"{settings['cpu']} is not 0 or more", field="cpu")
    return millis
