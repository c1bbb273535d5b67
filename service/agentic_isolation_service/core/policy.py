"""What workspaces a tenant may have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agentic_isolation.errors import InvalidArgumentError, NotAllowedError
from agentic_isolation.models import Mount, ResourceLimits, SecurityConfig, WorkspaceConfig
from agentic_isolation_service.core.patterns import Pattern

IMAGE_SEPARATORS = "/@"
"""What `*` does not stand for in patterns of images: where a digest is, engines pass over the tag."""
_PROTECTIONS = ("cap_drop_all", "no_new_privileges", "read_only_root", "tmpfs_tmp", "tmpfs_home")
_GVISOR = {False: 0, None: 1, True: 2}
"""How strong an answer to `use_gvisor` is."""
_IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]+")
"""What an engine may take for the beginning of an image's id, whosever it is."""
_IDS = 1 << 32
"""How many numbers of users there are."""


@dataclass(frozen=True, slots=True)
class HostPath:
    """A path of the engine's host that workspaces may have. It stands for itself, not for what lies in it.

    A workspace that could name what lies in a directory in which it can write would make symbolic links there, and the
    engine follows them.
    """

    path: str
    """Absolute and normal."""
    writable: bool = False
    """Whether workspaces may write there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a tenant may ask for; the defaults are those of a tenant that says nothing.

    Raises:
        InvalidArgumentError: A value makes no sense; the error names it.
    """

    providers: Sequence[str] | None = ("docker",)
    """Providers by name; None: any. "local" isolates nothing, so whatever is below is not held there."""
    images: Sequence[Pattern] | None = None
    """Images that may be used; None: any."""
    floor: SecurityConfig | None = field(default_factory=SecurityConfig.production)
    """The weakest protections that may be asked for, but for `pids_limit`; None: none need be."""
    network: bool = False
    """Whether workspaces may have a network."""
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    """The most that may be asked for, but for `network`; None: as much as the service gives."""
    pids: int | None = None
    """Processes and threads that may be asked for, likewise."""
    mounts: Sequence[HostPath] | None = ()
    """Paths of the engine's host that may be had; None: any."""
    max_lease: float | None = None
    """Seconds that a lease may take at most, likewise."""
    max_lifetime: float | None = None
    """Seconds that a workspace may live at most, likewise."""

    def __post_init__(self) -> None:
        bounds = self.limits.cpu_millis, self.limits.memory_bytes, self.limits.disk_bytes, self.limits.open_files
        names = "limits.cpu", "limits.memory", "limits.disk", "limits.open_files"
        for name, bound in (
            *zip(names, bounds, strict=True),
            ("limits.pids", self.pids),
            ("max_lease", self.max_lease),
            ("max_lifetime", self.max_lifetime),
        ):
            if bound is not None and not bound > 0:
                raise InvalidArgumentError(f"{bound} is not more than 0; leave it out for no bound", field=name)

    def check(self, config: WorkspaceConfig) -> None:
        """Refuses a workspace that the tenant may not have.

        Args:
            config: What is asked for, with its provider's defaults in place of what is left out.

        Raises:
            NotAllowedError: It names the field, and what may be asked for.
        """
        self.check_provider(config.provider)
        self.check_image(config.image)
        self._check_security(config.security)
        self._check_limits(config.limits)
        for position, mount in enumerate(config.mounts):
            self._check_mount(mount, f"mounts[{position}]", config.security)
        self.check_lease(config.lease)
        if self.max_lifetime is not None and (config.max_lifetime is None or config.max_lifetime > self.max_lifetime):
            asked = "no limit" if config.max_lifetime is None else f"{config.max_lifetime:g} s"
            raise _refusal("max_lifetime", asked, f"at most {self.max_lifetime:g} s")

    def has_provider(self, provider: str) -> bool:
        """Returns whether the tenant may use a provider."""
        return self.providers is None or provider in self.providers

    def check_provider(self, provider: str) -> None:
        """Refuses a provider that the tenant may not use; raises NotAllowedError."""
        if not self.has_provider(provider):
            raise _refusal("provider", repr(provider), _either(self.providers or ()))

    def check_image(self, image: str | None) -> None:
        """Refuses an image that the tenant may not use; raises NotAllowedError. None: there are no images."""
        if image is None or self.images is None or any(pattern.text == image for pattern in self.images):
            return
        allowed = _either([pattern.text for pattern in self.images])
        if _IMAGE_ID.fullmatch(image):
            raise _refusal("image", f"{image!r}, which may be the id of any image,", allowed)
        if not any(pattern.matches(image) for pattern in self.images):
            raise _refusal("image", repr(image), allowed)

    def check_lease(self, seconds: float) -> None:
        """Refuses a lease that is longer than the tenant's may be; raises NotAllowedError."""
        if self.max_lease is not None and seconds > self.max_lease:
            raise _refusal("lease_duration", f"{seconds:g} s", f"at most {self.max_lease:g} s")

    def _check_security(self, security: SecurityConfig | None) -> None:
        floor = self.floor
        if security is None:
            return
        if self.pids is not None and security.pids_limit > self.pids:
            raise _refusal("security.pids_limit", str(security.pids_limit), f"at most {self.pids}")
        if floor is None:
            return
        for name in _PROTECTIONS:
            if getattr(floor, name) and not getattr(security, name):
                raise _refusal(f"security.{name}", "false", "true, as it is where it is left out")
        if _GVISOR[security.use_gvisor] < _GVISOR[floor.use_gvisor]:
            asked = "to leave it out" if security.use_gvisor is None else "false"
            raise _refusal("security.use_gvisor", asked, "true" if floor.use_gvisor else "true, or leave it out")
        if _is_root(security.user) and not _is_root(floor.user):
            raise _refusal("security.user", repr(security.user), "any user and group but 0")

    def _check_limits(self, limits: ResourceLimits | None) -> None:
        if limits is None:
            return
        most = self.limits
        for name, asked, bound in (
            ("cpu_millis", limits.cpu_millis, most.cpu_millis),
            ("memory_bytes", limits.memory_bytes, most.memory_bytes),
            ("disk_bytes", limits.disk_bytes, most.disk_bytes),
            ("open_files_count", limits.open_files, most.open_files),
        ):
            if asked is not None and bound is not None and asked > bound:
                raise _refusal(f"limits.{name}", str(asked), f"at most {bound}")
        if limits.network and not self.network:
            raise _refusal("limits.network", "a network", "none")

    def _check_mount(self, mount: Mount, field: str, security: SecurityConfig | None) -> None:
        if self.mounts is None:
            return
        allowed = [known for known in self.mounts if known.path == mount.source]
        if not allowed:
            raise _refusal(f"{field}.source", repr(mount.source), _either([known.path for known in self.mounts]))
        if mount.read_only:
            return
        if not any(known.writable for known in allowed):
            raise _refusal(f"{field}.read_only", "false", "true")
        if security is not None and _is_root(security.user):
            # Else it could leave programs there that run as root for whoever starts them on the host.
            raise _refusal(f"{field}.read_only", "false as root", "true, or another user")


OPERATORS = Policy(providers=None, floor=None, network=True)
"""Of whoever calls a service that has no tenants."""
ANYTHING = replace(OPERATORS, mounts=None)
"""Of a program that has the service to itself, in its own process."""


def _refusal(field: str, asked: str, allowed: str) -> NotAllowedError:
    return NotAllowedError(f"{asked} is not for this tenant, which may have {allowed}", field=field)


def _either(names: Sequence[str]) -> str:
    return " or ".join(map(repr, names)) or "none"


def _is_root(user: str | None) -> bool:
    """Returns whether a user, or its group, is 0 for the kernel."""
    return any(int(part) % _IDS == 0 for part in (user or "1").split(":"))
