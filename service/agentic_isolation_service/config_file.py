"""The configuration file: TOML, with what does not fit on a command line."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.models import ResourceLimits, SecurityConfig, WorkspaceConfig
from agentic_isolation_service.core.templates import PoolTemplate

CONFIG_VARIABLE = "AGENTIC_ISOLATION_CONFIG"
"""Environment variable that names the file."""

_T = TypeVar("_T")
_Types = tuple[type, ...]
_POOL: dict[str, _Types] = {
    "name": (str,),
    "provider": (str,),
    "image": (str,),
    "working_dir": (str,),
    "min": (int,),
    "max": (int,),
    "security": (dict,),
    "limits": (dict,),
}
_SECURITY: dict[str, _Types] = {
    "cap_drop_all": (bool,),
    "no_new_privileges": (bool,),
    "read_only_root": (bool,),
    "tmpfs_tmp": (bool,),
    "tmpfs_home": (bool,),
    "pids_limit": (int,),
    "use_gvisor": (bool,),
    "user": (str,),
}
_LIMITS: dict[str, _Types] = {
    "cpu": (int, float, str),
    "memory": (int, str),
    "disk": (int, str),
    "open_files": (int,),
    "network": (bool,),
}
_WORDS = {str: "a string", int: "an integer", float: "a number", bool: "true or false", dict: "a table"}


def read_pools(path: Path) -> tuple[PoolTemplate, ...]:
    """Returns the pools that a file configures, each by a table `[[pool]]`.

    Raises:
        OSError: The file cannot be read.
        InvalidArgumentError: It is no TOML, or a setting makes no sense; the error names it, as `pool[0].min`.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidArgumentError(f"{path} is no TOML file: {error}", field="config") from None
    if unknown := content.keys() - {"pool"}:
        raise InvalidArgumentError(f"nothing is configured by it; use [[pool]] in {path}", field=min(unknown))
    tables = content.get("pool", [])
    if not isinstance(tables, list):
        raise InvalidArgumentError("it is one table; write [[pool]] for each pool", field="pool")
    templates: list[PoolTemplate] = []
    for position, table in enumerate(tables):
        template = _within(f"pool[{position}]", partial(_template, table))
        if template.name in {other.name for other in templates}:
            raise InvalidArgumentError(
                f"another pool is called {template.name!r} too; give each a name", field=f"pool[{position}].name"
            )
        templates.append(template)
    return tuple(templates)


def pools_of_environment() -> tuple[PoolTemplate, ...]:
    """Returns the pools of the file that CONFIG_VARIABLE names, or none. Raises what read_pools does."""
    path = os.environ.get(CONFIG_VARIABLE)
    return read_pools(Path(path)) if path else ()


def _template(table: object) -> PoolTemplate:
    settings = _checked(table, _POOL)
    security = limits = None
    if "security" in settings:
        security = _within("security", lambda: SecurityConfig(**_checked(settings.pop("security"), _SECURITY)))
    if "limits" in settings:
        limits = _within("limits", lambda: ResourceLimits(**_checked(settings.pop("limits"), _LIMITS)))
    sizes = {size: settings.pop(size) for size in ("min", "max") if size in settings}
    name = settings.pop("name", settings.get("image") or settings.get("provider") or WorkspaceConfig().provider)
    return PoolTemplate(name=name, config=WorkspaceConfig(**settings, security=security, limits=limits), **sizes)


def _checked(table: object, known: Mapping[str, _Types]) -> dict[str, Any]:
    """Returns a table's settings, each of which is known and of a type that it may have."""
    if not isinstance(table, dict):
        raise InvalidArgumentError("it is no table", field="")
    for name, value in table.items():
        if name not in known:
            raise InvalidArgumentError(f"there is no such setting; there are {', '.join(known)}", field=name)
        # A bool is an int for isinstance.
        if type(value) not in known[name]:
            words = " or ".join(_WORDS[kind] for kind in known[name])
            raise InvalidArgumentError(f"{value!r} is not {words}", field=name)
    return dict(table)


def _within(place: str, make: Callable[[], _T]) -> _T:
    """Returns what `make` makes; the errors that it raises name their field within a place."""
    try:
        return make()
    except InvalidArgumentError as error:
        field = f"{place}.{error.field}" if error.field else place
        raise InvalidArgumentError(error.message, field=field) from None
