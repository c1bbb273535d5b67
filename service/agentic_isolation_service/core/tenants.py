"""The tenants of a service: whose callers are, and what each tenant may have."""

from __future__ import annotations

import functools
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agentic_isolation.errors import InvalidArgumentError, NotAllowedError
from agentic_isolation_service.core.caller import Caller
from agentic_isolation_service.core.patterns import Pattern
from agentic_isolation_service.core.policy import OPERATORS, Policy
from agentic_isolation_service.core.validation import is_within

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_NOBODYS = ""
"""The tenant of those who call where there are no tenants."""
_REMEMBERED = 4096
"""Identities whose tenant is not looked for again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Somebody who has workspaces of its own.

    Raises:
        InvalidArgumentError: The name is malformed, or there is no identity.
    """

    name: str
    """As it is written down with its workspaces: 1 to 63 lower case letters, digits, `.`, `_` and `-`."""
    identities: Sequence[Pattern]
    """Whose calls are the tenant's."""
    admin: bool = False
    """Whether it has the workspaces of all tenants."""
    policy: Policy = field(default_factory=Policy)
    """What it may ask for."""
    quota: Mapping[str, object] = field(default_factory=dict)
    """How much it may have, as it is written."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidArgumentError(
                f"{self.name!r} is no name; write 1 to 63 lower case letters, digits, '.', '_' and '-'", field="name"
            )
        if not self.identities:
            raise InvalidArgumentError("there is none; name whose calls are the tenant's", field="identities")


class Tenants:
    """All tenants of one service; there may be none.

    Args:
        tenants: They, in the order of the configuration.
        others: What whoever is no tenant's may ask for, where it can call at all.

    Raises:
        InvalidArgumentError: Two have the same name, or there is an identity that could be two tenants', or a path of
            the host leads through a directory where workspaces can write.
    """

    def __init__(self, tenants: Sequence[Tenant] = (), *, others: Policy = OPERATORS) -> None:
        self._tenants = {tenant.name: tenant for tenant in tenants}
        self._policies = {_NOBODYS: others} | {tenant.name: tenant.policy for tenant in tenants}
        _check_names(tenants)
        _check_mounts(tenants)
        named = [
            (f"tenant[{position}].identities[{number}]", tenant, identity)
            for position, tenant in enumerate(tenants)
            for number, identity in enumerate(tenant.identities)
        ]
        _check_identities(named)
        self._exact = {identity.text: tenant for _, tenant, identity in named if identity.is_exact}
        self._patterns = [(identity, tenant) for _, tenant, identity in named if not identity.is_exact]
        self._tenant_of = functools.lru_cache(_REMEMBERED)(self._search)

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self._tenants.values())

    def __len__(self) -> int:
        return len(self._tenants)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tenants) and self._tenants == other._tenants

    def __hash__(self) -> int:
        return hash(frozenset(self._tenants))

    def __contains__(self, name: object) -> bool:
        return name in self._tenants

    def check(self, providers: Container[str]) -> None:
        """Raises InvalidArgumentError where a tenant may use a provider that there is not; the error names it."""
        for position, tenant in enumerate(self._tenants.values()):
            for number, name in enumerate(tenant.policy.providers or ()):
                if name not in providers:
                    raise InvalidArgumentError(
                        f"there is no provider {name!r} in this service; list those that the tenant may use, which is "
                        "docker where there is no list",
                        field=f"tenant[{position}].providers[{number}]",
                    )

    def caller_of(self, identity: str) -> Caller:
        """Returns the caller that an identity stands for. One that is named exactly goes before patterns.

        Raises:
            NotAllowedError: It is no tenant's.
        """
        tenant = self._exact.get(identity) or self._tenant_of(identity)
        if tenant is None:
            raise NotAllowedError(f"{identity!r} is no tenant's; name it in `identities` of a [[tenant]]")
        return Caller(identity=identity, tenant=tenant.name, admin=tenant.admin)

    def policy_of(self, caller: Caller) -> Policy:
        """Returns what a caller may ask for.

        Raises:
            NotAllowedError: Its tenant is none of these.
        """
        policy = self._policies.get(caller.tenant)
        if policy is None:
            raise NotAllowedError(f"there is no tenant {caller.tenant!r}")
        return policy

    def _search(self, identity: str) -> Tenant | None:
        return next((tenant for pattern, tenant in self._patterns if pattern.matches(identity)), None)


def _check_names(tenants: Sequence[Tenant]) -> None:
    seen: set[str] = set()
    for position, tenant in enumerate(tenants):
        if tenant.name in seen:
            raise InvalidArgumentError(
                f"another tenant is called {tenant.name!r} too; give all its identities in one table",
                field=f"tenant[{position}].name",
            )
        seen.add(tenant.name)


def _check_mounts(tenants: Sequence[Tenant]) -> None:
    """Refuses paths of the host that a workspace could have lead elsewhere, by symbolic links that it makes."""
    writable = [known.path for tenant in tenants for known in tenant.policy.mounts or () if known.writable]
    for position, tenant in enumerate(tenants):
        for number, known in enumerate(tenant.policy.mounts or ()):
            above = next((path for path in writable if path != known.path and is_within(known.path, path)), None)
            if above is not None:
                raise InvalidArgumentError(
                    f"{known.path!r} lies in {above!r}, where workspaces can write, and could make it a symbolic "
                    "link to anywhere; make that read-only, or keep them apart",
                    field=f"tenant[{position}].mounts[{number}]",
                )


def _check_identities(named: Sequence[tuple[str, Tenant, Pattern]]) -> None:
    """Refuses identities that two tenants name in the same way: exactly, or by patterns."""
    exact: dict[str, Tenant] = {}
    patterns: list[tuple[Tenant, Pattern]] = []
    for place, tenant, identity in named:
        if identity.is_exact:
            others = [(exact.setdefault(identity.text, tenant), identity)]
        else:
            others = [(other, pattern) for other, pattern in patterns if pattern.overlaps(identity)]
            patterns.append((tenant, identity))
        for other, its in others:
            if other is not tenant:
                raise InvalidArgumentError(
                    f"{identity.text!r} and {its.text!r} of tenant {other.name!r} can stand for the same caller; "
                    "make them differ, or name single identities exactly, which goes before patterns",
                    field=place,
                )
