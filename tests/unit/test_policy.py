"""What a tenant may have: each field that is more than that is refused by its name, defaults included."""

from __future__ import annotations

from typing import Any

import pytest

from agentic_isolation import InvalidArgumentError, Mount, ResourceLimits, SecurityConfig, WorkspaceConfig
from agentic_isolation.errors import NotAllowedError
from agentic_isolation_service.core.patterns import Pattern
from agentic_isolation_service.core.policy import ANYTHING, IMAGE_SEPARATORS, OPERATORS, HostPath, Policy
from agentic_isolation_service.core.ports import PlaceSpec
from agentic_isolation_service.providers.docker.container import ContainerPlan, container_config, with_defaults

DIGEST = "sha256:" + "0123456789abcdef" * 4


def asked(
    security: dict[str, Any] | None = None, limits: dict[str, Any] | None = None, **fields: Any
) -> WorkspaceConfig:
    """Returns what a container would have that is asked for so."""
    return with_defaults(
        WorkspaceConfig(
            **{"image": "python:3.12-slim"} | fields,
            security=None if security is None else SecurityConfig(**security),
            limits=None if limits is None else ResourceLimits(**limits),
        )
    )


HELD = (HostPath("/srv/a"), HostPath("/srv/w", writable=True))
WRITABLE = Mount("/srv/w", "/w", read_only=False)


def images(*patterns: str) -> tuple[Pattern, ...]:
    return tuple(Pattern(pattern, separators=IMAGE_SEPARATORS) for pattern in patterns)


def test_defaults_are_for_everybody() -> None:
    Policy().check(asked())
    Policy().check(asked(security={"use_gvisor": True, "pids_limit": 16, "user": "7:7"}, image="anything:1"))
    Policy(limits=ResourceLimits(cpu=2, memory="4G", disk="2G", open_files=4096), pids=256).check(asked())


@pytest.mark.parametrize(
    ("policy", "config", "field", "words"),
    [
        ({}, asked(provider="local"), "provider", "which may have 'docker'"),
        ({"providers": ()}, asked(), "provider", "which may have none"),
        ({}, asked({"cap_drop_all": False}), "security.cap_drop_all", "may have true"),
        ({}, asked({"no_new_privileges": False}), "security.no_new_privileges", "may have true"),
        ({}, asked({"read_only_root": False}), "security.read_only_root", "may have true"),
        ({}, asked({"tmpfs_tmp": False}), "security.tmpfs_tmp", "may have true"),
        ({}, asked({"tmpfs_home": False}), "security.tmpfs_home", "may have true"),
        ({}, asked({"use_gvisor": False}), "security.use_gvisor", "true, or leave it out"),
        ({}, asked({"user": "0"}), "security.user", "any user and group but 0"),
        ({}, asked({"user": "0:1000"}), "security.user", "any user and group but 0"),
        ({}, asked({"user": "1000:0"}), "security.user", "any user and group but 0"),
        ({}, asked({"user": "00"}), "security.user", "any user and group but 0"),
        ({}, asked({"user": "4294967296"}), "security.user", "any user and group but 0"),
        ({}, asked(limits={"network": True}), "limits.network", "none"),
        ({"floor": SecurityConfig(use_gvisor=True)}, asked(), "security.use_gvisor", "which may have true"),
        ({"floor": SecurityConfig.development()}, asked({"tmpfs_tmp": False}), "security.tmpfs_tmp", "true"),
        ({"pids": 255}, asked(), "security.pids_limit", "256 is not for this tenant, which may have at most 255"),
        ({"limits": ResourceLimits(cpu=1.999)}, asked(), "limits.cpu_millis", "at most 1999"),
        ({"limits": ResourceLimits(memory="4095M")}, asked(), "limits.memory_bytes", "4294967296"),
        ({"limits": ResourceLimits(disk="1G")}, asked(), "limits.disk_bytes", "at most 1073741824"),
        ({"limits": ResourceLimits(open_files=64)}, asked(), "limits.open_files_count", "4096"),
        ({"limits": ResourceLimits(cpu=1)}, asked(limits={"cpu": 1.001}), "limits.cpu_millis", "1001"),
        ({"max_lease": 299}, asked(), "lease_duration", "300 s is not for this tenant, which may have at most 299 s"),
        ({"max_lifetime": 60}, asked(), "max_lifetime", "no limit is not for this tenant"),
        ({"max_lifetime": 60}, asked(max_lifetime=61.0), "max_lifetime", "at most 60 s"),
        ({"images": images("node:*")}, asked(), "image", "'python:3.12-slim' is not for this tenant, which may have"),
        ({"images": ()}, asked(), "image", "none"),
        (
            {},
            asked(mounts=[Mount("/srv/a", "/a")]),
            "mounts[0].source",
            "'/srv/a' is not for this tenant, which may have none",
        ),
        ({"mounts": HELD}, asked(mounts=[Mount("/srv/a/b", "/b")]), "mounts[0].source", "'/srv/a' or '/srv/w'"),
        ({"mounts": HELD}, asked(mounts=[Mount("/srv", "/b")]), "mounts[0].source", "'/srv/a' or '/srv/w'"),
        ({"mounts": HELD}, asked(mounts=[WRITABLE, Mount("/srv/a", "/a", False)]), "mounts[1].read_only", "true"),
        (
            {"mounts": HELD, "floor": SecurityConfig(user="0:0")},
            asked({"user": "0"}, mounts=[WRITABLE]),
            "mounts[0].read_only",
            "another user",
        ),
    ],
)
def test_more_is_refused(policy: dict[str, Any], config: WorkspaceConfig, field: str, words: str) -> None:
    with pytest.raises(NotAllowedError) as refused:
        Policy(**policy).check(config)
    assert refused.value.field == field
    assert words in refused.value.message
    ANYTHING.check(config)


@pytest.mark.parametrize(
    ("policy", "config"),
    [
        ({"floor": SecurityConfig.development()}, asked({"read_only_root": False, "use_gvisor": False})),
        ({"floor": SecurityConfig(user="0:0")}, asked({"user": "0"})),
        ({"floor": SecurityConfig(cap_drop_all=False)}, asked({"cap_drop_all": False})),
        ({"network": True}, asked(limits={"network": True})),
        ({"mounts": HELD}, asked(mounts=[Mount("/srv/a", "/a"), WRITABLE])),
        ({"mounts": HELD, "floor": SecurityConfig(user="0:0")}, asked({"user": "0"}, mounts=[Mount("/srv/w", "/w")])),
        ({"providers": ("docker", "local")}, WorkspaceConfig(provider="local")),
        ({"max_lifetime": 60}, asked(max_lifetime=60.0)),
        ({"max_lease": 300}, asked()),
        ({"limits": ResourceLimits(cpu=1, memory="1G")}, asked(limits={"cpu": 1, "memory": "1G"})),
    ],
)
def test_as_much_is_allowed(policy: dict[str, Any], config: WorkspaceConfig) -> None:
    Policy(**policy).check(config)


@pytest.mark.parametrize(
    ("pattern", "image", "allowed"),
    [
        ("python:3.12-slim", "python:3.12-slim", True),
        ("python:3.12-slim", "python:3.12-slim-evil", False),
        ("python:*", "python:3.12", True),
        ("python:*", "python.evil.example:5000/image", False),
        ("python:*", "python:5000/image", False),
        ("python*", "python.evil.example/image:1", False),
        ("*", "python:3.12", True),
        ("*", "registry.example.org/python:3.12", False),
        ("registry.example.org/team/*", "registry.example.org/team/image:1", True),
        ("registry.example.org/team/*", "registry.example.org/team/deeper/image:1", False),
        ("registry.example.org/**", f"registry.example.org/team/deeper/image:1@{DIGEST}", True),
        # An engine passes over the tag where there is a digest: that must be meant.
        ("python:3.12*", f"python:3.12@{DIGEST}", False),
        ("python:*@*", f"python:3.12@{DIGEST}", True),
        (f"python@{DIGEST}", f"python@{DIGEST}", True),
        (f"python@{DIGEST}", f"evil@{DIGEST}", False),
        # What an engine may take for an image's id, whosever image that is.
        ("*", DIGEST, False),
        ("**", DIGEST, False),
        ("*", "f00d", False),
        ("*", "f00d:latest", True),
        ("f00d", "f00d", True),
        (DIGEST, DIGEST, True),
    ],
)
def test_images(pattern: str, image: str, allowed: bool) -> None:
    policy = Policy(images=images("no-such:*", pattern))
    if allowed:
        return policy.check(asked(image=image))
    with pytest.raises(NotAllowedError) as refused:
        policy.check(asked(image=image))
    assert refused.value.field == "image"
    assert pattern in refused.value.message
    return None


def test_every_protection_has_a_floor() -> None:
    """Whatever SecurityConfig comes to have is held, or passed over here on purpose."""
    for name in SecurityConfig.__dataclass_fields__.keys() - {"pids_limit"}:
        weaker = {"use_gvisor": False, "user": "0"}.get(name, False)
        with pytest.raises(NotAllowedError) as refused:
            Policy().check(asked({name: weaker}))
        assert refused.value.field == f"security.{name}"


@pytest.mark.parametrize(
    "config",
    [
        WorkspaceConfig(image="a"),
        WorkspaceConfig(image="a", security=SecurityConfig(user="7", pids_limit=99), limits=ResourceLimits(cpu="0.5")),
        WorkspaceConfig(image="a", limits=ResourceLimits(memory="1.5G", network=True)),
    ],
)
def test_what_is_left_out_is_what_the_container_gets(config: WorkspaceConfig) -> None:
    """Whatever a policy is held against, nothing else is made."""
    as_asked, as_held = (
        ContainerPlan(PlaceSpec("ws-a", each, b""), "a", "", "volume", {}, guest_directory="/guest")
        for each in (config, with_defaults(config))
    )
    assert container_config(as_asked) == container_config(as_held)


def test_every_limit_has_a_bound() -> None:
    least: dict[str, Any] = {"cpu": 0.01, "memory": 1, "disk": 1, "open_files": 1}
    assert least.keys() | {"network"} == ResourceLimits.__dataclass_fields__.keys()
    for name, bound in least.items():
        with pytest.raises(NotAllowedError) as refused:
            Policy(limits=ResourceLimits(**{name: bound})).check(asked())
        assert str(refused.value.field).startswith(f"limits.{name}")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"limits": ResourceLimits(cpu=0)}, "limits.cpu"),
        ({"limits": ResourceLimits(cpu="many")}, "limits.cpu"),
        ({"limits": ResourceLimits(memory="much")}, "limits.memory"),
        ({"limits": ResourceLimits(disk=-1)}, "limits.disk"),
        ({"limits": ResourceLimits(open_files=0)}, "limits.open_files"),
        ({"pids": 0}, "limits.pids"),
        ({"max_lease": 0}, "max_lease"),
        ({"max_lease": float("nan")}, "max_lease"),
        ({"max_lifetime": -1.0}, "max_lifetime"),
    ],
)
def test_bounds_that_make_no_sense(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        Policy(**settings)
    assert refused.value.field == field


def test_mounts_are_nobodys_where_there_are_no_tenants() -> None:
    with pytest.raises(NotAllowedError, match="may have none"):
        OPERATORS.check(asked(mounts=[Mount("/srv/a", "/a")]))
    ANYTHING.check(asked(mounts=[Mount("/srv/a", "/a")]))
