"""`[unix]`: users of the unix socket, who are told apart."""

from __future__ import annotations

import pwd
from dataclasses import dataclass

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.settings.tables import checked, strings

_NO_USER = (1 << 32) - 1
"""The number of a user who is none (chown(2))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixSettings:
    """Has the kernel be asked who connects."""

    users: frozenset[int] | None = None
    """Numbers of those who may; None: all whom the socket's mode lets in."""


def unix_of(table: object) -> UnixSettings:
    """Returns what a table `[unix]` says.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it, as `users[0]`.
    """
    settings = checked(table, {"users": (list,)})
    if "users" not in settings:
        return UnixSettings()
    names = strings(settings["users"], "users")
    return UnixSettings(users=frozenset(_uid_of(name, f"users[{position}]") for position, name in enumerate(names)))


def _uid_of(name: str, field: str) -> int:
    if name.isdecimal() and name.isascii() and int(name) < _NO_USER:
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise InvalidArgumentError(f"there is no user {name!r}; give a name or a number", field=field) from None
