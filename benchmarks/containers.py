"""Containers of others: in the same engine, of the same image and hardened like ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LABEL = "agentic-isolation.benchmark"
"""On everything that a run makes in the engine; its value is the run's name."""
LIFETIME = 1800
"""Seconds after which such a container ends by itself, and is removed."""
USER = "1000:1000"
_OF_OUR_GUEST = frozenset({"Binds", "Mounts"})


@dataclass(frozen=True, slots=True)
class Containers:
    """What containers of a contender are like."""

    host: str
    """The engine, as DOCKER_HOST spells it."""
    image: str
    runtime: str
    """The engine's name of their runtime."""
    settings: Mapping[str, Any]
    """HostConfig of our own containers, without what only our guest needs."""
    run: str
    """Value of LABEL."""

    @property
    def host_config(self) -> dict[str, Any]:
        """HostConfig of ordinary ones."""
        return {**self.settings, "Runtime": self.runtime}

    @property
    def writable(self) -> dict[str, Any]:
        """HostConfig of those with a writable root: into a read-only one the engine copies no archives."""
        return {**self.host_config, "ReadonlyRootfs": False}

    @property
    def labels(self) -> dict[str, str]:
        """What they are found again by."""
        return {LABEL: self.run}

    @property
    def clock(self) -> str:
        """The clock that they have in common with this machine; gVisor's monotonic one is its own."""
        return "realtime" if self.runtime == "runsc" else "monotonic"


def settings_like_ours(image: str, cpus: int) -> dict[str, Any]:
    """Returns Containers.settings for an engine with so many CPUs."""
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
