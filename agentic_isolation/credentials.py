"""What a program shows to a service, and how it knows that it is the right one."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from agentic_isolation._wire import check_text, check_type, wrong_type
from agentic_isolation.errors import InvalidArgumentError

__all__ = ["Credentials"]

_VARIABLE = "AGENTIC_ISOLATION_"
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Proofs for a service, and of it. An embedded service needs none.

    All files may be replaced while they are used: a token is read again within a second, and connections that are made
    later have the certificates that lie there then.

    Raises:
        InvalidArgumentError: They contradict each other, a token is none, or something is of another type; the error
            does not contain it.
    """

    token: str | None = field(default=None, repr=False)
    """Sent with each call; over TLS, or to this machine itself, only, unless `plaintext` says otherwise."""
    token_file: str | os.PathLike[str] | None = None
    """A file with the token, in place of it."""
    ca_file: str | os.PathLike[str] | None = None
    """Certificates, in PEM, of the authorities that the service's certificate may be from; None: gRPC's own list."""
    certificate_file: str | os.PathLike[str] | None = None
    """Our certificate, in PEM, and after it those of intermediate authorities."""
    key_file: str | os.PathLike[str] | None = None
    """Its private key, in PEM and without a passphrase."""
    server_name: str | None = None
    """The name in the service's certificate, where it is not the target's host."""
    tls: bool = False
    """Use TLS, to any service but one on a unix socket. ca_file, certificate_file and server_name imply it."""
    plaintext: bool = False
    """Send the token without TLS, to other machines too: a mesh, such as a sidecar beside this program, has it."""

    def __post_init__(self) -> None:
        for name in ("token_file", "ca_file", "certificate_file", "key_file"):
            if not isinstance(file := getattr(self, name), str | os.PathLike | None):
                raise wrong_type(file, f"credentials.{name}", "a path")
        if self.server_name is not None:
            check_text(self.server_name, "credentials.server_name")
        check_type(self.tls, "credentials.tls", bool)
        if check_type(self.plaintext, "credentials.plaintext", bool) and self.wants_tls:
            raise InvalidArgumentError(
                "what is for TLS is there, too; leave one of them out", field="credentials.plaintext"
            )
        if self.token is not None:
            if self.token_file is not None:
                raise InvalidArgumentError("there is a token, too; give one of them", field="credentials.token_file")
            check_token(self.token, "credentials.token")
        if (self.certificate_file is None) != (self.key_file is None):
            missing = "key_file" if self.key_file is None else "certificate_file"
            raise InvalidArgumentError(
                "it is missing; a certificate needs its key, and a key its certificate", field=f"credentials.{missing}"
            )

    @property
    def has_token(self) -> bool:
        """Whether there is a token to be sent."""
        return self.token is not None or self.token_file is not None

    @property
    def wants_tls(self) -> bool:
        """Whether anything here is for TLS."""
        named = (self.ca_file, self.certificate_file, self.server_name)
        return self.tls or any(part is not None for part in named)

    @classmethod
    def from_environment(cls) -> Credentials:
        """Returns those of AGENTIC_ISOLATION_TOKEN, _TOKEN_FILE, _TLS_CA, _TLS_CERTIFICATE, _TLS_KEY, _TLS_SERVER_NAME.

        _TLS=1 is for `tls`, and _PLAINTEXT=1 for `plaintext`. What is empty counts as unset.

        Raises:
            InvalidArgumentError: They contradict each other.
        """

        def of(name: str) -> str | None:
            return os.environ.get(_VARIABLE + name) or None

        return cls(
            token=of("TOKEN"),
            token_file=of("TOKEN_FILE"),
            ca_file=of("TLS_CA"),
            certificate_file=of("TLS_CERTIFICATE"),
            key_file=of("TLS_KEY"),
            server_name=of("TLS_SERVER_NAME"),
            tls=of("TLS") not in (None, "0"),
            plaintext=of("PLAINTEXT") not in (None, "0"),
        )


def check_token(token: str, name: str) -> str:
    """Returns a token. Raises InvalidArgumentError, which does not contain it, where it cannot be sent."""
    if not _TOKEN.fullmatch(check_text(token, name)):
        raise InvalidArgumentError("a token has only printable ASCII characters, and no spaces", field=name)
    return token
