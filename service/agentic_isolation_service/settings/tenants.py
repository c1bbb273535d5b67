"""`[[tenant]]`: who has workspaces of its own, and which it may have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.models import SecurityConfig
from agentic_isolation_service.core.patterns import Pattern
from agentic_isolation_service.core.policy import IMAGE_SEPARATORS, HostPath, Policy
from agentic_isolation_service.core.templates import PoolTemplate
from agentic_isolation_service.core.tenants import Tenant, Tenants
from agentic_isolation_service.core.validation import check_normal_path
from agentic_isolation_service.settings.protections import LIMITS, SECURITY, limits_of
from agentic_isolation_service.settings.tables import Types, checked, strings, tables, within

_POLICY: dict[str, Types] = {
    "providers": (list,),
    "images": (list,),
    "floor": (str, dict),
    "network": (bool,),
    "mounts": (list,),
    "limits": (dict,),
    "max_lease": (int, float),
    "max_lifetime": (int, float),
}
_TENANT: dict[str, Types] = {
    "name": (str,),
    "identities": (list,),
    "admin": (bool,),
    "quota": (dict,),
    **_POLICY,
}
_MAXIMA: dict[str, Types] = {name: types for name, types in LIMITS.items() if name != "network"} | {"pids": (int,)}
_FLOOR: dict[str, Types] = {name: types for name, types in SECURITY.items() if name != "pids_limit"}
_FLOORS = {"production": SecurityConfig.production(), "development": SecurityConfig.development()}
_ROOT = "0:0"
_WRITABLE = ":rw"
"""Behind a path of the host: workspaces may write there."""


def tenants_of(content: object, pools: Sequence[PoolTemplate]) -> Tenants:
    """Returns the tenants that tables `[[tenant]]` configure.

    Args:
        content: The tables.
        pools: What is kept ready, for whom.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it, as `tenant[0].name`.
    """
    found = Tenants([within(place, partial(_tenant, table)) for place, table in tables(content, "tenant")])
    for position, pool in enumerate(pools):
        for number, name in enumerate(pool.tenants or ()):
            if name not in found:
                raise InvalidArgumentError(
                    f"there is no tenant {name!r}; write a [[tenant]] for it",
                    field=f"pool[{position}].tenants[{number}]",
                )
    return found


def _tenant(table: object) -> Tenant:
    settings = checked(table, _TENANT)
    policy = {name: settings.pop(name) for name in _POLICY if name in settings}
    for name in ("name", "identities"):
        if name not in settings:
            raise InvalidArgumentError("it is missing", field=name)
    identities = _patterns(settings.pop("identities"), "identities", separators="/")
    return Tenant(identities=identities, policy=_policy(policy), **settings)


def _policy(settings: dict[str, Any]) -> Policy:
    if "providers" in settings:
        settings["providers"] = strings(settings["providers"], "providers")
    if "images" in settings:
        settings["images"] = _patterns(settings["images"], "images", separators=IMAGE_SEPARATORS)
    if "floor" in settings:
        settings["floor"] = within("floor", partial(_floor, settings["floor"]))
    if "mounts" in settings:
        settings["mounts"] = _host_paths(settings["mounts"])
    if "limits" in settings:
        limits = within("limits", partial(checked, settings["limits"], _MAXIMA))
        settings["pids"] = limits.pop("pids", None)
        settings["limits"] = limits_of(limits)
    return Policy(**settings)


def _floor(value: object) -> SecurityConfig:
    if isinstance(value, str):
        if value not in _FLOORS:
            raise InvalidArgumentError(f"{value!r} is neither {' nor '.join(map(repr, _FLOORS))}", field="")
        return _FLOORS[value]
    settings = checked(value, _FLOOR)
    if settings.get("user", _ROOT) != _ROOT:
        raise InvalidArgumentError(f"write {_ROOT!r} to allow root, or leave it out", field="user")
    return SecurityConfig(**settings)


def _host_paths(content: Sequence[object]) -> tuple[HostPath, ...]:
    found = []
    for position, text in enumerate(strings(content, "mounts")):
        path = text.removesuffix(_WRITABLE)
        check_normal_path(path, f"mounts[{position}]")
        found.append(HostPath(path, writable=path != text))
    return tuple(found)


def _patterns(content: Sequence[object], name: str, *, separators: str) -> tuple[Pattern, ...]:
    return tuple(
        within(f"{name}[{position}]", partial(Pattern, text, separators=separators))
        for position, text in enumerate(strings(content, name))
    )
