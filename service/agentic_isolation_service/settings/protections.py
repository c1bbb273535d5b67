"""Tables of protections and limits, which several kinds of tables have."""

from __future__ import annotations

from agentic_isolation.models import ResourceLimits, SecurityConfig
from agentic_isolation_service.settings.tables import Types, checked

SECURITY: dict[str, Types] = {
    "cap_drop_all": (bool,),
    "no_new_privileges": (bool,),
    "read_only_root": (bool,),
    "tmpfs_tmp": (bool,),
    "tmpfs_home": (bool,),
    "pids_limit": (int,),
    "use_gvisor": (bool,),
    "user": (str,),
}
"""The fields of SecurityConfig."""
LIMITS: dict[str, Types] = {
    "cpu": (int, float, str),
    "memory": (int, str),
    "disk": (int, str),
    "open_files": (int,),
    "network": (bool,),
}
"""The fields of ResourceLimits."""


def security_of(table: object) -> SecurityConfig:
    """Returns the protections of a table. Raises InvalidArgumentError, naming the setting that makes no sense."""
    return SecurityConfig(**checked(table, SECURITY))


def limits_of(table: object) -> ResourceLimits:
    """Returns the limits of a table. Raises what security_of does."""
    return ResourceLimits(**checked(table, LIMITS))
