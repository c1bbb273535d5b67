"""Where a service may listen, given who would reach it there and what it asks of them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Protocol

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.settings.unix import UnixSettings

# gRPC takes IPv6 without brackets for an address without a port, which is another address.
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+):([0-9]{1,5})")
SOCKET_MODE = 0o600
"""Mode of a unix socket that nobody has said anything about."""
RELAYED_SUFFIX = ".relayed"
"""Of the path of the server's own socket, where users are asked for by a relay before it."""
_OTHERS_WRITE = 0o002
_LONGEST_PATH = 107
"""Bytes of a unix socket's path (unix(7))."""


class Identifying(Protocol):
    """What the configuration file says of identities and TLS."""

    @property
    def identifies(self) -> bool:
        """Whether callers have to prove who they are."""

    @property
    def tls(self) -> object | None:
        """Certificates; None: the service speaks plaintext."""

    @property
    def unix(self) -> UnixSettings | None:
        """Users of the unix socket; None: they are not told apart."""

    @property
    def tenants(self) -> Collection[object]:
        """Who has workspaces of its own; empty: everybody has all."""


def is_loopback(host: str) -> bool:
    """Returns whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_unix(address: str) -> bool:
    """Returns whether an address is a unix socket's."""
    return address.startswith("unix:")


def split_host_port(address: str) -> tuple[str, int] | None:
    """Returns host, without brackets, and port of an address; None: it is not host:port."""
    match = _HOST_PORT.fullmatch(address)
    return None if match is None or int(match[2]) > 65535 else (match[1].strip("[]"), int(match[2]))


def check_address(address: str, *, relayed: bool = False) -> None:
    """Raises InvalidArgumentError for what is neither host:port nor unix:PATH; relayed ones have a second path."""
    if is_unix(address):
        longest = _LONGEST_PATH - (len(RELAYED_SUFFIX) if relayed else 0)
        if not 1 <= len(address.removeprefix("unix:").encode()) <= longest:
            raise InvalidArgumentError(
                f"a unix socket's path has 1 to {longest} bytes{' with [unix]' if relayed else ''}", field="address"
            )
        return
    if relayed:
        raise InvalidArgumentError(f"{address} is no unix socket; listen on unix:PATH, or leave it out", field="unix")
    if split_host_port(address) is None:
        raise InvalidArgumentError(f"{address!r} is neither host:port nor unix:PATH", field="address")


def is_reachable(address: str) -> bool:
    """Returns whether other machines may reach an address that was checked."""
    return not is_unix(address) and not is_loopback(address.rpartition(":")[0].strip("[]"))


def check_reach(address: str, file: Identifying, *, insecure_listen: bool, plaintext: bool) -> None:
    """Raises InvalidArgumentError where a service must not listen, as strangers would be let in or listen too."""
    if is_unix(address) and file.tls is not None:
        raise InvalidArgumentError(
            "TLS is for host:port; who may use a unix socket is said by socket_mode and socket_group", field="tls"
        )
    if not is_reachable(address) or insecure_listen:
        return
    host = address.rpartition(":")[0]
    if not file.identifies:
        raise InvalidArgumentError(
            f"{host} is reachable from other machines and there is no authentication; listen on 127.0.0.1, [::1] or "
            "unix:PATH, or configure [[token]], [jwt] or [tls] with client_ca, or set insecure_listen to let everybody "
            "in",
            field="address",
        )
    if file.tls is None and not plaintext:
        raise InvalidArgumentError(
            f"{host} is reachable from other machines, where tokens must not travel in plaintext; configure [tls], or "
            "set plaintext where a mesh or a proxy in front of the service has TLS",
            field="address",
        )


def check_socket(address: str, mode: int, group: str | None, file: Identifying, *, insecure_listen: bool) -> None:
    """Raises InvalidArgumentError for a mode that is none or lets every user in, and for any where no socket is.

    Every user may connect where each is known and most of them are nobody here.
    """
    if not is_unix(address) and (mode != SOCKET_MODE or group is not None):
        field = "socket_mode" if group is None else "socket_group"
        raise InvalidArgumentError(f"{address} is no unix socket; listen on unix:PATH, or leave it out", field=field)
    if not 0 <= mode <= 0o777:
        raise InvalidArgumentError(f"{mode:#o} is not from 0o000 to 0o777", field="socket_mode")
    chosen = file.unix is not None and bool(file.tenants or file.unix.users is not None)
    if mode & _OTHERS_WRITE and not (chosen or insecure_listen):
        raise InvalidArgumentError(
            f"with {mode:#o} every user of this machine may connect, and has everything; use 0660 with socket_group, "
            "name users in a table [unix], or set insecure_listen",
            field="socket_mode",
        )
