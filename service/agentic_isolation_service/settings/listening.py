"""Where a service may listen, given who would reach it there and what it asks of them."""

from __future__ import annotations

import ipaddress
import re
from typing import Protocol

from agentic_isolation.errors import InvalidArgumentError

# gRPC takes IPv6 without brackets for an address without a port, which is another address.
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+):([0-9]{1,5})")
SOCKET_MODE = 0o600
"""Mode of a unix socket that nobody has said anything about."""
_OTHERS_WRITE = 0o002


class Identifying(Protocol):
    """What the configuration file says of identities and TLS."""

    @property
    def identifies(self) -> bool:
        """Whether callers have to prove who they are."""

    @property
    def tls(self) -> object | None:
        """Certificates; None: the service speaks plaintext."""


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


def check_address(address: str) -> None:
    """Raises InvalidArgumentError for what is neither host:port nor unix:PATH."""
    if is_unix(address):
        if len(address.removeprefix("unix:").encode()) not in range(1, 108):
            raise InvalidArgumentError("a unix socket's path has 1 to 107 bytes", field="address")
        return
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


def check_socket(address: str, mode: int, group: str | None, *, insecure_listen: bool) -> None:
    """Raises InvalidArgumentError for a mode that is none or lets every user in, and for any where no socket is."""
    if not is_unix(address) and (mode != SOCKET_MODE or group is not None):
        field = "socket_mode" if group is None else "socket_group"
        raise InvalidArgumentError(f"{address} is no unix socket; listen on unix:PATH, or leave it out", field=field)
    if not 0 <= mode <= 0o777:
        raise InvalidArgumentError(f"{mode:#o} is not from 0o000 to 0o777", field="socket_mode")
    if mode & _OTHERS_WRITE and not insecure_listen:
        raise InvalidArgumentError(
            f"with {mode:#o} every user of this machine may connect, and has everything; use 0660 with socket_group, "
            "or set insecure_listen",
            field="socket_mode",
        )
