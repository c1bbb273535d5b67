"""A container that has less than was asked for is refused, whatever the engine says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentic_isolation.models import Isolation, Mount, NetworkMode, ResourceLimits, SecurityConfig, WorkspaceConfig
from agentic_isolation_service.providers.docker.isolation import mount_shortfalls, shortfalls

ASKED = WorkspaceConfig(limits=ResourceLimits(memory="1G", disk="64M", open_files=1000))
HELD = Isolation(
    runtime="runc",
    user="1000:1000",
    no_new_privileges=True,
    seccomp="filter",
    read_only_root=True,
    network=NetworkMode.NONE,
    cpu_millis=2000,
    memory_bytes=1 << 30,
    disk_bytes=64 << 20,
    open_files=1000,
    pids_limit=900,
)


def test_what_was_asked_for_is_enough() -> None:
    assert shortfalls(HELD, ASKED, in_gvisor=False) == []
    assert shortfalls(replace(HELD, runtime="runsc"), ASKED, in_gvisor=True) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"user": "0:0"}, "0:0"),
        ({"capabilities": ("CAP_NET_RAW",)}, "CAP_NET_RAW"),
        ({"no_new_privileges": False}, "no_new_privs"),
        ({"read_only_root": False}, "root file system"),
        ({"memory_bytes": None}, "limits.memory"),
        ({"disk_bytes": 250 << 30}, "limits.disk"),
        ({"open_files": 1 << 20}, "limits.open_files"),
        ({"pids_limit": None}, "processes"),
        ({"runtime": "runsc"}, "not gVisor's"),
    ],
)
def test_less_is_told(change: dict[str, object], word: str) -> None:
    [told] = shortfalls(replace(HELD, **change), ASKED, in_gvisor=False)  # type: ignore[arg-type]
    assert word in told


def test_less_is_fine_where_less_was_asked_for() -> None:
    relaxed = replace(ASKED, security=SecurityConfig(cap_drop_all=False, no_new_privileges=False, read_only_root=False))
    found = replace(HELD, capabilities=("CAP_CHOWN",), no_new_privileges=False, read_only_root=False)
    assert shortfalls(found, relaxed, in_gvisor=False) == []


@pytest.mark.parametrize(
    ("told", "word"),
    [
        (None, "/srv/a is not at /a"),
        ([], "/srv/a is not at /a"),
        (["/a"], "/srv/a is not at /a"),
        ([{"Destination": "/a", "Source": "/srv", "RW": False}], "/srv/a is not at /a"),
        ([{"Destination": "/a", "Source": "/srv/a", "RW": True}], "/a is writable"),
        ([{"Destination": "/a", "Source": "/srv/a"}], "/a is writable"),
    ],
)
def test_mounts_that_are_not_held_are_told(told: object, word: str) -> None:
    asked = [Mount("/srv/a", "/a"), Mount("/srv/w", "/w", read_only=False)]
    writable = {"Destination": "/w", "Source": "/srv/w", "RW": True}
    found = {"Mounts": [*told, writable] if isinstance(told, list) else told}
    assert word in mount_shortfalls(found, asked)
    held = {"Mounts": [{"Destination": "/a", "Source": "/srv/a", "RW": False}, writable]}
    assert mount_shortfalls(held, asked) == []
