"""The configuration file: TOML, with what does not fit on a command line."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.core.quotas import UNBOUND, Quotas
from agentic_isolation_service.core.templates import PoolTemplate
from agentic_isolation_service.core.tenants import Tenants
from agentic_isolation_service.core.tokens import StaticToken
from agentic_isolation_service.settings.audit import AuditSettings, audit_of
from agentic_isolation_service.settings.cluster import ClusterSettings, cluster_of
from agentic_isolation_service.settings.pools import pools_of
from agentic_isolation_service.settings.quotas import quotas_of
from agentic_isolation_service.settings.tables import Types, checked, within
from agentic_isolation_service.settings.telemetry import TracingSettings, metrics_address_of, tracing_of
from agentic_isolation_service.settings.tenants import tenants_of
from agentic_isolation_service.settings.tls import TlsSettings, tls_of
from agentic_isolation_service.settings.tokens import tokens_of
from agentic_isolation_service.settings.unix import UnixSettings, unix_of
from agentic_isolation_service.settings.web_tokens import WebTokenSettings, web_tokens_of

_T = TypeVar("_T")
CONFIG_VARIABLE = "AGENTIC_ISOLATION_CONFIG"
"""Environment variable that names the file."""
_SECTIONS: dict[str, Types] = {
    "cluster": (dict,),
    "pool": (list, dict),
    "tenant": (list, dict),
    "tls": (dict,),
    "token": (list, dict),
    "jwt": (dict,),
    "unix": (dict,),
    "quota": (dict,),
    "tenant_quota": (dict,),
    "metrics": (dict,),
    "tracing": (dict,),
    "audit": (dict,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings:
    """What a configuration file says; without one, what holds by default."""

    pools: Sequence[PoolTemplate] = ()
    """Places that are kept ready for workspaces to come."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    """What the service is among others behind one proxy."""
    tokens: Sequence[StaticToken] = ()
    """Tokens that callers may show."""
    jwt: WebTokenSettings | None = None
    """JSON Web Tokens that callers may show; None: there are none."""
    tls: TlsSettings | None = None
    """Certificates; None: the service speaks plaintext."""
    unix: UnixSettings | None = None
    """Users of the unix socket, who are told apart; None: they are not."""
    tenants: Tenants = field(default_factory=Tenants)
    """Who has workspaces of its own."""
    quotas: Quotas = UNBOUND
    """What tenants, and all of them together, may have."""
    metrics_address: str | None = None
    """Where metrics are served; None: nowhere."""
    tracing: TracingSettings | None = None
    """Where spans of calls are sent; None: nowhere."""
    audit: AuditSettings | None = None
    """Where the audit log is written; None: there is none."""

    @property
    def identifies(self) -> bool:
        """Whether callers have to prove who they are. With tenants they do, whatever there is to prove it by."""
        mutual = self.tls is not None and self.tls.client_ca is not None
        return bool(self.tokens or self.jwt or mutual or self.unix or self.tenants)


def read_settings(path: Path) -> FileSettings:
    """Returns what a file says.

    Raises:
        OSError: The file cannot be read.
        InvalidArgumentError: It is no TOML, or a setting makes no sense; the error names both, the setting as
            `pool[0].min`.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except ValueError as error:
        raise InvalidArgumentError(f"{path} is no TOML file: {error}", field="config") from None
    try:
        return _settings(content)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{error.message} (in {path})", field=error.field) from None


def _settings(content: object) -> FileSettings:
    content = checked(content, _SECTIONS)
    pools = pools_of(content.get("pool", []))
    tenants = tenants_of(content.get("tenant", []), pools)
    return FileSettings(
        pools=pools,
        cluster=cluster_of(content.get("cluster", {})),
        tokens=tokens_of(content.get("token", [])),
        jwt=_of("jwt", content, web_tokens_of),
        tls=_of("tls", content, tls_of),
        unix=_of("unix", content, unix_of),
        tenants=tenants,
        quotas=quotas_of(
            content.get("quota", {}),
            content.get("tenant_quota", {}),
            {tenant.name: tenant.quota for tenant in tenants if tenant.quota},
        ),
        metrics_address=_of("metrics", content, metrics_address_of),
        tracing=_of("tracing", content, tracing_of),
        audit=audit_of(content["audit"]) if "audit" in content else None,
    )


def _of(name: str, content: Mapping[str, object], make: Callable[[object], _T]) -> _T | None:
    """Returns what is made of a table; None: the file has no such."""
    return within(name, lambda: make(content[name])) if name in content else None


def settings_of_environment() -> FileSettings:
    """Returns what the file says that CONFIG_VARIABLE names, or the defaults.

    Raises:
        InvalidArgumentError: The file cannot be read, is no TOML, or a setting makes no sense.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    try:
        return read_settings(Path(path)) if path else FileSettings()
    except OSError as error:
        raise InvalidArgumentError(f"{path!r} cannot be read: {error.strerror}", field=CONFIG_VARIABLE) from error
