"""Where a service may listen: never where strangers are let in, or listen, unless that was asked for by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentic_isolation import InvalidArgumentError
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.tokens import StaticToken
from agentic_isolation_service.identities import warnings_of
from agentic_isolation_service.settings.file import FileSettings
from agentic_isolation_service.settings.tenants import tenants_of
from agentic_isolation_service.settings.tls import TlsSettings
from agentic_isolation_service.settings.unix import UnixSettings
from agentic_isolation_service.settings.web_tokens import WebTokenSettings

TOKENS = (StaticToken(name="ci", sha256="0" * 64),)
JWT = WebTokenSettings(issuer="https://i.example.org", audience="a", jwks="/keys.json")
TLS = TlsSettings(certificate=Path("c.pem"), key=Path("k.pem"))
MUTUAL = TlsSettings(certificate=Path("c.pem"), key=Path("k.pem"), client_ca=Path("ca.pem"))
ANYWHERE = "0.0.0.0:50051"
UNIX = "unix:/run/a.sock"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (FileSettings(), "there is no authentication"),
        (FileSettings(tls=TLS), "there is no authentication"),
        (FileSettings(tokens=TOKENS), "must not travel in plaintext"),
        (FileSettings(jwt=JWT), "must not travel in plaintext"),
    ],
)
def test_reachable_address_is_refused(file: FileSettings, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words) as caught:
        ServiceConfig(address=ANYWHERE, file=file)
    assert caught.value.field == "address"


@pytest.mark.parametrize(
    "file",
    [FileSettings(tls=MUTUAL), FileSettings(tls=TLS, tokens=TOKENS), FileSettings(tls=TLS, jwt=JWT)],
)
def test_reachable_address_with_identities_and_tls_is_not(file: FileSettings) -> None:
    assert warnings_of(ServiceConfig(address=ANYWHERE, file=file)) == []


def test_plaintext_is_had_by_name_and_warned_of() -> None:
    config = ServiceConfig(address=ANYWHERE, file=FileSettings(tokens=TOKENS), plaintext=True)
    [warning] = warnings_of(config)
    assert "can take tokens" in warning
    with pytest.raises(InvalidArgumentError, match="there is no authentication"):
        ServiceConfig(address=ANYWHERE, plaintext=True)


def test_anybody_is_let_in_by_name_and_warned_of() -> None:
    [warning] = warnings_of(ServiceConfig(address=ANYWHERE, insecure_listen=True))
    assert "anybody who can reach 0.0.0.0:50051 has every workspace" in warning


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "localhost:1", UNIX])
@pytest.mark.parametrize("file", [FileSettings(), FileSettings(tokens=TOKENS), FileSettings(jwt=JWT)])
def test_this_machine_needs_nothing(address: str, file: FileSettings) -> None:
    assert warnings_of(ServiceConfig(address=address, file=file)) == []


def test_unix_socket_has_no_tls() -> None:
    with pytest.raises(InvalidArgumentError, match="socket_mode") as caught:
        ServiceConfig(address=UNIX, file=FileSettings(tls=MUTUAL))
    assert caught.value.field == "tls"


@pytest.mark.parametrize("mode", [-1, 0o1000, 0o602, 0o666, 0o777])
def test_socket_mode_that_lets_everybody_in_or_is_none_is_refused(mode: int) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        ServiceConfig(address=UNIX, socket_mode=mode)
    assert caught.value.field == "socket_mode"


@pytest.mark.parametrize(("field", "said"), [("socket_mode", 0o660), ("socket_group", "agents")])
def test_who_may_use_a_socket_is_not_said_of_a_port(field: str, said: Any) -> None:
    """Whoever says so believes that nobody else gets in."""
    with pytest.raises(InvalidArgumentError, match="unix:PATH") as caught:
        ServiceConfig(address="127.0.0.1:0", **{field: said})
    assert caught.value.field == field


def test_socket_mode_for_everybody_is_had_by_name() -> None:
    assert ServiceConfig(address=UNIX, socket_mode=0o666, insecure_listen=True).socket_mode == 0o666
    assert ServiceConfig(address=UNIX, socket_mode=0o660).socket_mode == 0o660


TENANTS = tenants_of([{"name": "a", "identities": ["unix:1000"]}], ())


@pytest.mark.parametrize(
    ("file", "allowed"),
    [
        (FileSettings(unix=UnixSettings()), False),
        (FileSettings(tenants=TENANTS), False),
        (FileSettings(unix=UnixSettings(), tenants=TENANTS), True),
        (FileSettings(unix=UnixSettings(users=frozenset({1000}))), True),
        (FileSettings(unix=UnixSettings(users=frozenset())), True),
    ],
)
def test_everybody_may_connect_where_few_of_them_are_anybody(file: FileSettings, allowed: bool) -> None:
    if allowed:
        ServiceConfig(address=UNIX, socket_mode=0o666, file=file)
    else:
        with pytest.raises(InvalidArgumentError, match=r"a table \[unix\]") as caught:
            ServiceConfig(address=UNIX, socket_mode=0o666, file=file)
        assert caught.value.field == "socket_mode"


def test_users_are_told_apart_on_a_socket_only() -> None:
    with pytest.raises(InvalidArgumentError, match="unix:PATH") as caught:
        ServiceConfig(address="127.0.0.1:0", file=FileSettings(unix=UnixSettings()))
    assert caught.value.field == "unix"


def test_path_leaves_room_for_the_second_one() -> None:
    longest = "unix:/" + "s" * 98
    ServiceConfig(address=longest, file=FileSettings(unix=UnixSettings()))
    ServiceConfig(address=longest + "s" * 8)
    with pytest.raises(InvalidArgumentError, match="1 to 99 bytes") as caught:
        ServiceConfig(address=longest + "s", file=FileSettings(unix=UnixSettings()))
    assert caught.value.field == "address"
