"""From the settings to what finds out who calls, and to what the service itself proves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.caller import Caller
from agentic_isolation_service.core.tokens import StaticTokens
from agentic_isolation_service.rpc.authentication.bearer import BearerTokens
from agentic_isolation_service.rpc.authentication.certificates import PeerCertificates, revocation_lists
from agentic_isolation_service.rpc.authentication.key_sets import FileKeys, KeySet
from agentic_isolation_service.rpc.authentication.layer import Authentication, administrator
from agentic_isolation_service.rpc.authentication.proof import Authenticator
from agentic_isolation_service.rpc.authentication.unix_peers import UnixPeers, UnixUsers
from agentic_isolation_service.rpc.authentication.web_tokens import WebTokens
from agentic_isolation_service.rpc.proxies import resolving_behind
from agentic_isolation_service.rpc.reloading import Reloaded
from agentic_isolation_service.rpc.tls import ServerCertificates
from agentic_isolation_service.settings.listening import is_reachable, is_unix
from agentic_isolation_service.settings.tls import TlsSettings
from agentic_isolation_service.settings.web_tokens import WebTokenSettings


def authentication_of(config: ServiceConfig, resolve: Callable[[str], Caller] = administrator) -> Authentication | None:
    """Returns what finds out who calls; None where no identities are configured, and everybody is the operator.

    Reads the files that it needs.

    Args:
        config: The service's.
        resolve: Returns the caller that an identity is, or raises NotAllowedError where it is nobody's here.

    Raises:
        OSError: A file cannot be read.
        InvalidArgumentError: One makes no sense; the error names the setting, as `tls.revoked`.
    """
    file = config.file
    if not file.identifies:
        return None
    signed = None if file.jwt is None else _web_tokens(file.jwt)
    authenticators: list[Authenticator] = []
    if file.tls is not None and file.tls.client_ca is not None:
        authenticators.append(_certificates(file.tls))
    if is_unix(config.address):
        authenticators.append(UnixPeers() if file.unix is None else UnixUsers(file.unix.users))
    if not (authenticators or file.tokens or signed):
        raise InvalidArgumentError(
            "nothing proves who calls: write [[token]], [jwt] or [tls] with client_ca, or listen on a unix socket",
            field="tenant",
        )
    tokens = BearerTokens(StaticTokens(file.tokens), signed)
    return Authentication([tokens, *authenticators], resolving_behind(file.cluster.proxies, resolve))


def certificates_of(config: ServiceConfig) -> ServerCertificates | None:
    """Returns what the service has for TLS; None: it speaks plaintext. Reads the files, and raises as the above."""
    tls = config.file.tls
    return None if tls is None else ServerCertificates(tls.certificate, tls.key, tls.client_ca)


def warnings_of(config: ServiceConfig) -> list[str]:
    """Returns what whoever starts the service should know of who may reach it."""
    if config.insecure_listen and not config.file.identifies:
        return [f"insecure_listen: anybody who can reach {config.address} has every workspace of this service"]
    if config.file.tls is None and is_reachable(config.address):
        return [f"plaintext: whoever is between {config.address} and the mesh or proxy that has TLS can take tokens"]
    return []


def _web_tokens(settings: WebTokenSettings) -> WebTokens:
    file, algorithms = settings.file, settings.algorithms
    return WebTokens(
        _remote_keys(settings) if file is None else FileKeys(file, algorithms),
        issuer=settings.issuer,
        audience=settings.audience,
        algorithms=algorithms,
        leeway=settings.leeway,
    )


def _remote_keys(settings: WebTokenSettings) -> KeySet:
    from agentic_isolation_service.rpc.authentication.remote_keys import RemoteKeys

    return RemoteKeys(settings.jwks, settings.algorithms)


def _certificates(tls: TlsSettings) -> PeerCertificates:
    if tls.revoked is None:
        return PeerCertificates()
    return PeerCertificates(Reloaded("the revocation list", [tls.revoked], partial(revocation_lists, tls.revoked)))
