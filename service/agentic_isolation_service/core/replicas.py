"""Replicas: services that one proxy stands before. The ids of a replica's workspaces carry its name."""

from __future__ import annotations

import base64
import re
import secrets

from agentic_isolation.errors import InvalidArgumentError, WrongReplicaError

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")
_RANDOM_LENGTH = 20
_ID = re.compile(r"ws-(?:([a-z0-9-]{1,20})-)?[a-z2-7]{20}")


def check_name(name: str) -> None:
    """Raises InvalidArgumentError where a name cannot be a replica's; the error names no field."""
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"{name!r} is no name of a replica; it has 1 to 20 of a-z, 0-9 and '-', and '-' neither first nor last"
        )


def is_id(text: str) -> bool:
    """Returns whether a workspace can be called so, whichever replica's it is."""
    return _ID.fullmatch(text) is not None


def hide_ids(text: str) -> str:
    """Returns a text without what tells one workspace's id from another's."""
    return _ID.sub("ws-…", text)


class Replica:
    """One of the services behind a proxy, or the only one there is.

    Args:
        name: Its name; empty: it is the only one.

    Raises:
        InvalidArgumentError: No replica can be called so.
    """

    def __init__(self, name: str = "") -> None:
        if name:
            check_name(name)
        self.name = name

    def new_id(self) -> str:
        """Returns an id for a workspace, which nobody can guess."""
        random = base64.b32encode(secrets.token_bytes(13)).decode().lower()[:_RANDOM_LENGTH]
        return f"ws-{self.name}-{random}" if self.name else f"ws-{random}"

    def check(self, workspace_id: str) -> None:
        """Refuses a workspace that is not here because it is another replica's.

        Raises:
            WrongReplicaError: Its id says so; the error names the replica.
        """
        if match := _ID.fullmatch(workspace_id):
            self._check(f"workspace {workspace_id!r}", match[1])

    def check_token(self, name: str) -> None:
        """Refuses the page token that another replica gave out.

        Raises:
            WrongReplicaError: It did.
        """
        self._check("the page_token", name)

    def _check(self, what: str, owner: str | None) -> None:
        if self.name and owner and owner != self.name:
            raise WrongReplicaError(
                f"{what} is replica {owner!r}'s, and this is {self.name!r}; "
                f"repeat the call with metadata agentic-isolation-replica: {owner}",
                replica=owner,
            )
