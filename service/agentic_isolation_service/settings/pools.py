"""`[[pool]]`: places that are kept ready."""

from __future__ import annotations

from functools import partial

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.models import WorkspaceConfig
from agentic_isolation_service.core.templates import PoolTemplate
from agentic_isolation_service.settings.protections import limits_of, security_of
from agentic_isolation_service.settings.tables import Types, checked, strings, tables, within

_POOL: dict[str, Types] = {
    "name": (str,),
    "provider": (str,),
    "image": (str,),
    "working_dir": (str,),
    "min": (int,),
    "max": (int,),
    "security": (dict,),
    "limits": (dict,),
    "tenants": (list,),
}


def pools_of(content: object) -> tuple[PoolTemplate, ...]:
    """Returns the pools that tables `[[pool]]` configure.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it, as `pool[0].min`.
    """
    templates: list[PoolTemplate] = []
    for place, table in tables(content, "pool"):
        template = within(place, partial(_template, table))
        if template.name in {other.name for other in templates}:
            raise InvalidArgumentError(
                f"another pool is called {template.name!r} too; give each a name", field=f"{place}.name"
            )
        templates.append(template)
    return tuple(templates)


def _template(table: object) -> PoolTemplate:
    settings = checked(table, _POOL)
    security = limits = None
    if "security" in settings:
        security = within("security", lambda: security_of(settings.pop("security")))
    if "limits" in settings:
        limits = within("limits", lambda: limits_of(settings.pop("limits")))
    sizes = {size: settings.pop(size) for size in ("min", "max") if size in settings}
    tenants = strings(settings.pop("tenants"), "tenants") if "tenants" in settings else None
    name = settings.pop("name", settings.get("image") or settings.get("provider") or WorkspaceConfig().provider)
    config = WorkspaceConfig(**settings, security=security, limits=limits)
    return PoolTemplate(name=name, config=config, tenants=tenants, **sizes)
