"""The profiles that the doctor attacks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from agentic_isolation.models import SecurityConfig

PRODUCTION = "production"
DEVELOPMENT = "development"
LOCAL = "local"


class GVisor(Enum):
    """Whether workspaces are to run under gVisor."""

    AUTO = "auto"
    """As the profile says."""
    REQUIRED = "required"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Profile:
    """How attacked workspaces are made."""

    name: str
    provider: str
    security: SecurityConfig | None


def profiles_of(provider: str, names: tuple[str, ...], gvisor: GVisor) -> list[Profile]:
    """Returns the profiles of a provider by their names; the local provider has one only, which is no isolation."""
    if provider != "docker":
        return [Profile(LOCAL, provider, None)]
    made = {PRODUCTION: SecurityConfig.production, DEVELOPMENT: SecurityConfig.development}
    return [Profile(name, provider, _with_gvisor(made[name](), gvisor)) for name in names]


def _with_gvisor(security: SecurityConfig, gvisor: GVisor) -> SecurityConfig:
    if gvisor is GVisor.AUTO:
        return security
    return replace(security, use_gvisor=gvisor is GVisor.REQUIRED)
