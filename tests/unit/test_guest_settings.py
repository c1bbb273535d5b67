"""What a guest is told about how long it lives and remembers."""

from __future__ import annotations

import json
from dataclasses import replace

from agentic_isolation import WorkspaceConfig
from agentic_isolation_service.core.ports import PlaceSpec
from agentic_isolation_service.guest.settings import times
from agentic_isolation_service.providers.docker.container import ContainerPlan, container_config


def test_limits_that_nobody_asked_for_are_left_out() -> None:
    assert times(WorkspaceConfig(lease=60), request_window=600) == {"lease_ms": 60_000, "request_window_ms": 600_000}


def test_times_are_whole_milliseconds_and_never_shorter() -> None:
    config = WorkspaceConfig(lease=1.0001, idle_timeout=0.0004, max_lifetime=7200)
    assert times(config, request_window=0.5) == {
        "lease_ms": 1001,
        "idle_ms": 1,
        "lifetime_ms": 7_200_000,
        "request_window_ms": 500,
    }


def test_containers_guest_is_told_them() -> None:
    config = WorkspaceConfig(lease=60, idle_timeout=30, max_lifetime=90)
    spec = replace(PlaceSpec("ws-one", config, bytes(32)), request_window=10.0)
    body = container_config(ContainerPlan(spec, "image", "", "volume", {}))
    environment = body["Env"]
    assert isinstance(environment, list)
    [settings] = [each.partition("=")[2] for each in environment if each.startswith("AGENTIC_GUEST_CONFIG=")]
    assert times(config, request_window=10.0).items() <= json.loads(settings).items()
