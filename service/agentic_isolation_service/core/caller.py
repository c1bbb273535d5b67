"""Who asks: what the rest of the service knows of whoever is at the other end of a call."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever makes a call, as far as that was proved."""

    identity: str
    """What proves who it is, as it is told in logs: a SPIFFE id, a token's name, an issuer and subject. No secret."""
    tenant: str
    """Whose workspaces it has; empty: of the service itself, where it knows no tenants."""
    admin: bool = False
    """Whether it has the workspaces of all tenants."""

    def has(self, owner: str) -> bool:
        """Returns whether a tenant's workspaces are the caller's to use."""
        return self.admin or self.tenant == owner


OPERATOR = Caller(identity="operator", tenant="", admin=True)
"""Who runs the service: whoever calls one that knows no identities, and the program that one is embedded in."""
NOBODY = Caller(identity="", tenant="")
"""Whoever makes a call that has to prove who makes it, until it has."""
