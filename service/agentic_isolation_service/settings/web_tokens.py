"""`[jwt]`: JSON Web Tokens of one issuer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.settings.listening import is_loopback
from agentic_isolation_service.settings.tables import Types, checked

_JWT: dict[str, Types] = {
    "issuer": (str,),
    "audience": (str,),
    "jwks": (str,),
    "algorithms": (list,),
    "leeway": (int, float),
}
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those that may be configured: signatures of which the service has only the public keys. No HS*, and never none."""
DEFAULT_ALGORITHMS = ("RS256", "ES256", "EdDSA")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebTokenSettings:
    """Which JSON Web Tokens are taken."""

    issuer: str
    """Their `iss`."""
    audience: str
    """What their `aud` is or holds: this service."""
    jwks: str
    """Path or address of the issuer's key set (RFC 7517)."""
    algorithms: Sequence[str] = DEFAULT_ALGORITHMS
    """Those that they may be signed with, of ALGORITHMS."""
    leeway: float = 30.0
    """Seconds by which the issuer's clock may differ from ours."""

    def __post_init__(self) -> None:
        for name in ("issuer", "audience", "jwks"):
            if not getattr(self, name):
                raise InvalidArgumentError("it is empty", field=name)
        unknown = [name for name in self.algorithms if name not in ALGORITHMS]
        if unknown or not self.algorithms:
            raise InvalidArgumentError(
                f"{unknown[0] if unknown else 'none'} is not one of {', '.join(ALGORITHMS)}", field="algorithms"
            )
        if not 0 <= self.leeway <= 300:
            raise InvalidArgumentError(f"{self.leeway:g} s is not from 0 to 300 s", field="leeway")
        if "://" in self.jwks and not _may_be_asked(self.jwks):
            raise InvalidArgumentError(
                "keys are fetched from https://, or http:// on this machine, where nobody can put theirs in their "
                "place; or name a file",
                field="jwks",
            )

    @property
    def file(self) -> Path | None:
        """The file of the key set; None: it is at an address."""
        return None if "://" in self.jwks else Path(self.jwks)


def web_tokens_of(table: object) -> WebTokenSettings:
    """Returns what a table `[jwt]` says.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it, as `issuer`.
    """
    settings = checked(table, _JWT)
    for name in ("issuer", "audience", "jwks"):
        if name not in settings:
            raise InvalidArgumentError("it is missing", field=name)
    algorithms = settings.pop("algorithms", DEFAULT_ALGORITHMS)
    return WebTokenSettings(**settings, algorithms=tuple(str(name) for name in algorithms))


def _may_be_asked(address: str) -> bool:
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return False
    if parts.username is not None or parts.password is not None:
        return False
    if parts.scheme == "https":
        return bool(host)
    return parts.scheme == "http" and is_loopback(host)
