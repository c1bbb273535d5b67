"""`[tls]`: the server's certificate, and those of its clients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.settings.tables import Types, checked

_TLS: dict[str, Types] = {
    "certificate": (str,),
    "key": (str,),
    "client_ca": (str,),
    "client_certificates": (str,),
    "revoked": (str,),
}
_REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Files of TLS, each in PEM. They are read again when they change.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it.
    """

    certificate: Path
    """The server's certificate, and after it those of intermediate authorities."""
    key: Path
    """Its private key, without a passphrase."""
    client_ca: Path | None = None
    """Authorities whose certificates clients have to show; None: clients show none."""
    revoked: Path | None = None
    """Revocation lists of these authorities; None: there are none."""

    def __post_init__(self) -> None:
        if self.revoked is not None and self.client_ca is None:
            raise InvalidArgumentError("without client_ca clients show no certificates", field="revoked")


def tls_of(table: object) -> TlsSettings:
    """Returns what a table `[tls]` says.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it, as `key`.
    """
    settings = checked(table, _TLS)
    for name in ("certificate", "key"):
        if name not in settings:
            raise InvalidArgumentError("it is missing; name a file in PEM", field=name)
    wanted = settings.pop("client_certificates", _REQUIRED)
    if wanted != _REQUIRED:
        raise InvalidArgumentError(
            f"{wanted!r} cannot be had, as gRPC for Python either asks clients for a certificate or does not; with "
            f"client_ca it is {_REQUIRED!r}, and for clients without one run a service without client_ca, with tokens",
            field="client_certificates",
        )
    return TlsSettings(**{name: Path(path) for name, path in settings.items()})
