"""Settings of the service, checked."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.core.templates import PoolTemplate
from agentic_isolation_service.core.workspaces import DEFAULT_MAX_WORKSPACES, DEFAULT_REQUEST_WINDOW

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_IMAGE = "python:3.12-slim"
IMAGE_VARIABLE = "AGENTIC_ISOLATION_DOCKER_IMAGE"
"""Environment variable with DockerConfig.image."""
LABELS_VARIABLE = "AGENTIC_ISOLATION_DOCKER_LABELS"
"""Environment variable with DockerConfig.labels: NAME=VALUE, separated by commas."""
DNS_VARIABLE = "AGENTIC_ISOLATION_DOCKER_DNS"
"""Environment variable with DockerConfig.dns: IPv4 addresses, separated by commas."""

# gRPC takes IPv6 without brackets for an address without a port, which is another address.
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerConfig:
    """How to use a Docker Engine."""

    host: str | None = None
    """As DOCKER_HOST spells it. None: DOCKER_HOST, else the standard socket."""
    image: str = DEFAULT_IMAGE
    """Image of workspaces that name none."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Put on everything that is created for workspaces in the engine, for finding it there."""
    dns: Sequence[str] = ()
    """IPv4 addresses of the name servers of workspaces with a network. None: those that the engine gives containers.
    Those on the engine's host or link-local have to be the same in all services that use the engine."""

    def __post_init__(self) -> None:
        for address in self.dns:
            try:
                ipaddress.IPv4Address(address)
            except ValueError:
                raise InvalidArgumentError(f"{address!r} is no IPv4 address", field=DNS_VARIABLE) from None

    @classmethod
    def from_environment(cls) -> DockerConfig:
        """Returns the settings of IMAGE_VARIABLE, LABELS_VARIABLE and DNS_VARIABLE, or their defaults.

        Raises:
            InvalidArgumentError: A label is not NAME=VALUE, or a name server no IPv4 address.
        """
        labels = {}
        for pair in filter(None, os.environ.get(LABELS_VARIABLE, "").split(",")):
            name, separator, value = pair.partition("=")
            if not separator:
                raise InvalidArgumentError(f"{pair!r} is not NAME=VALUE", field=LABELS_VARIABLE)
            labels[name] = value
        dns = tuple(address.strip() for address in os.environ.get(DNS_VARIABLE, "").split(",") if address.strip())
        return cls(image=os.environ.get(IMAGE_VARIABLE) or DEFAULT_IMAGE, labels=labels, dns=dns)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """How to run a service.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it.
    """

    address: str = DEFAULT_ADDRESS
    """`host:port` (port 0: any free one) or `unix:PATH`. Only loopback: there is no authentication yet."""
    state_dir: Path | None = None
    """Where it keeps what it needs to know: its workspaces outlive it, and the next service with this directory takes
    them up. None: a private temporary directory, and workspaces end with their service."""
    takeover_timeout: float = 60.0
    """Seconds to wait for another service that uses the state directory to end."""
    request_window: float = DEFAULT_REQUEST_WINDOW
    """Seconds that a request's id is remembered after its end."""
    max_workspaces: int = DEFAULT_MAX_WORKSPACES
    """Workspaces at a time."""
    pools: Sequence[PoolTemplate] = ()
    """Places that are kept ready for workspaces to come."""
    grace: float = 10.0
    """Seconds that running calls have when the service stops."""
    docker: DockerConfig = field(default_factory=DockerConfig.from_environment)
    """The engine for the docker provider."""

    def __post_init__(self) -> None:
        _check_address(self.address)
        if self.max_workspaces < 1:
            raise InvalidArgumentError(f"{self.max_workspaces} is not 1 or more", field="max_workspaces")
        if (least := sum(pool.min for pool in self.pools)) > self.max_workspaces:
            raise InvalidArgumentError(
                f"the pools keep {least} places at least, and there may be {self.max_workspaces} workspaces; "
                "lower their min, or raise max_workspaces",
                field="pool",
            )
        if not 0 <= self.takeover_timeout <= 86_400:
            raise InvalidArgumentError(
                f"{self.takeover_timeout:g} s is not from 0 to 86400 s", field="takeover_timeout"
            )
        if not 1 <= self.request_window <= 86_400:
            raise InvalidArgumentError(f"{self.request_window:g} s is not from 1 to 86400 s", field="request_window")
        if not 0 <= self.grace <= 3600:
            raise InvalidArgumentError(f"{self.grace:g} s is not from 0 to 3600 s", field="grace")


def _check_address(address: str) -> None:
    if address.startswith("unix:"):
        if len(address.removeprefix("unix:").encode()) not in range(1, 108):
            raise InvalidArgumentError("a unix socket's path has 1 to 107 bytes", field="address")
        return
    match = _HOST_PORT.fullmatch(address)
    if match is None or int(match[2]) > 65535:
        raise InvalidArgumentError(f"{address!r} is neither host:port nor unix:PATH", field="address")
    host = match[1]
    if not _is_loopback(host.strip("[]")):
        raise InvalidArgumentError(
            f"{host} is reachable from other machines and this service has no authentication yet; "
            "listen on 127.0.0.1, [::1] or unix:PATH",
            field="address",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
