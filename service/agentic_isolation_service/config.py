"""Settings of the service, checked."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.core.replicas import check_name
from agentic_isolation_service.core.workspaces import DEFAULT_MAX_WORKSPACES, DEFAULT_REQUEST_WINDOW
from agentic_isolation_service.settings.file import FileSettings
from agentic_isolation_service.settings.listening import SOCKET_MODE, check_address, check_reach, check_socket
from agentic_isolation_service.settings.providers import PROVIDERS, check_providers
from agentic_isolation_service.settings.tables import within
from agentic_isolation_service.settings.telemetry import split_metrics_address

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_IMAGE = "python:3.12-slim"
IMAGE_VARIABLE = "AGENTIC_ISOLATION_DOCKER_IMAGE"
"""Environment variable with DockerConfig.image."""
REPLICA_VARIABLE = "AGENTIC_ISOLATION_REPLICA"
"""Environment variable with ServiceConfig.replica."""
LABELS_VARIABLE = "AGENTIC_ISOLATION_DOCKER_LABELS"
"""Environment variable with DockerConfig.labels: NAME=VALUE, separated by commas."""
DNS_VARIABLE = "AGENTIC_ISOLATION_DOCKER_DNS"
"""Environment variable with DockerConfig.dns: IPv4 addresses, separated by commas."""


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
    """`host:port` (port 0: any free one) or `unix:PATH`. Beyond loopback only with identities and TLS, unless the two
    settings below say otherwise."""
    insecure_listen: bool = False
    """Listen where anybody who can reach the address, or open the socket, has everything."""
    plaintext: bool = False
    """Listen beyond loopback without TLS: a mesh or a proxy in front of the service has it."""
    socket_mode: int = SOCKET_MODE
    """Mode of a unix socket: who may write to it may connect."""
    socket_group: str | None = None
    """Group of a unix socket, by name or number; None: the process's own."""
    state_dir: Path | None = None
    """Where it keeps what it needs to know: its workspaces outlive it, and the next service with this directory takes
    them up. None: a private temporary directory, and workspaces end with their service."""
    takeover_timeout: float = 60.0
    """Seconds to wait for another service that uses the state directory to end."""
    request_window: float = DEFAULT_REQUEST_WINDOW
    """Seconds that a request's id is remembered after its end."""
    max_workspaces: int = DEFAULT_MAX_WORKSPACES
    """Workspaces at a time."""
    replica: str = ""
    """What it is called among the replicas behind one proxy: a part of its workspaces' ids. Empty: the only one."""
    metrics_address: str | None = None
    """`host:port` where metrics are served (port 0: any free one), in place of what the file says. None: as it says."""
    channelz: bool = False
    """Tell by gRPC's channelz of connections and calls, those of other callers included."""
    file: FileSettings = field(default_factory=FileSettings)
    """What its configuration file says."""
    grace: float = 10.0
    """Seconds that running calls have when the service stops."""
    docker: DockerConfig = field(default_factory=DockerConfig.from_environment)
    """The engine for the docker provider."""
    providers: Sequence[str] = PROVIDERS
    """What callers may make workspaces of. The local provider runs their commands with the service's own rights."""

    def __post_init__(self) -> None:
        check_address(self.address, relayed=self.file.unix is not None)
        check_reach(self.address, self.file, insecure_listen=self.insecure_listen, plaintext=self.plaintext)
        check_socket(self.address, self.socket_mode, self.socket_group, self.file, insecure_listen=self.insecure_listen)
        if self.replica:
            within("replica", lambda: check_name(self.replica))
        if self.metrics_address is not None:
            split_metrics_address(self.metrics_address, field="metrics_address")
        if self.max_workspaces < 1:
            raise InvalidArgumentError(f"{self.max_workspaces} is not 1 or more", field="max_workspaces")
        if (least := sum(pool.min for pool in self.file.pools)) > self.max_workspaces:
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
        check_providers(self.providers, [pool.config.provider for pool in self.file.pools])
