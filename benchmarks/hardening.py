"""How containers of others are hardened: like ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LABEL = "agentic-isolation.benchmark"
"""On every container that a benchmark makes by itself."""
LIFETIME = 1800
"""Seconds after which such a container ends by itself, and is removed."""
WRITABLE: Mapping[str, Any] = {"ReadonlyRootfs": False}
_OF_OUR_GUEST = frozenset({"Binds", "Mounts"})


def hardening(image: str, cpus: int) -> dict[str, Any]:
    """Returns the HostConfig of our containers on an engine with so many CPUs, without what only our guest needs."""
    from agentic_isolation.models import WorkspaceConfig
    from agentic_isolation_service.core.ports import PlaceSpec
    from agentic_isolation_service.providers.docker.container import ContainerPlan, container_config, default_cpu_millis

    plan = ContainerPlan(
        spec=PlaceSpec(workspace_id="benchmark", config=WorkspaceConfig(), key=b""),
        image=image,
        runtime="",
        guest_volume="",
        labels={},
        default_cpu_millis=default_cpu_millis(cpus),
    )
    settings = container_config(plan)["HostConfig"]
    assert isinstance(settings, dict)
    return {name: value for name, value in settings.items() if name not in _OF_OUR_GUEST}
