"""Tables of the configuration file that say who callers are, and what they are refused for."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_isolation import InvalidArgumentError
from agentic_isolation_service.core.tokens import StaticToken
from agentic_isolation_service.settings.file import read_settings
from agentic_isolation_service.settings.tls import TlsSettings
from agentic_isolation_service.settings.unix import UnixSettings
from agentic_isolation_service.settings.web_tokens import WebTokenSettings

DIGEST, OTHER = "ab" * 32, "cd" * 32
FULL = f"""
[tls]
certificate = "server.pem"
key = "server.key"
client_ca = "clients.pem"
client_certificates = "required"
revoked = "clients.crl"

[[token]]
name = "ci"
sha256 = "{DIGEST.upper()}"

[[token]]
name = "agents@team-a"
sha256 = "{OTHER}"
expires = 2030-01-01T00:00:00Z

[jwt]
issuer = "https://issuer.example.org"
audience = "agentic-isolation"
jwks = "https://issuer.example.org/jwks.json"
algorithms = ["PS256"]
leeway = 5
"""


def test_all_settings_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(FULL)
    settings = read_settings(file)
    assert settings.tls == TlsSettings(
        certificate=Path("server.pem"),
        key=Path("server.key"),
        client_ca=Path("clients.pem"),
        revoked=Path("clients.crl"),
    )
    assert settings.tokens == (
        StaticToken(name="ci", sha256=DIGEST),
        StaticToken(name="agents@team-a", sha256=OTHER, expires=1893456000.0),
    )
    assert settings.jwt == WebTokenSettings(
        issuer="https://issuer.example.org",
        audience="agentic-isolation",
        jwks="https://issuer.example.org/jwks.json",
        algorithms=("PS256",),
        leeway=5,
    )
    assert settings.identifies


def jwt(**settings: str) -> str:
    known = {"issuer": '"i"', "audience": '"a"', "jwks": '"keys.json"'} | settings
    return "[jwt]\n" + "\n".join(f"{name} = {value}" for name, value in known.items())


def token(name: str = '"ci"', sha256: str = f'"{DIGEST}"', more: str = "") -> str:
    return f"[[token]]\nname = {name}\nsha256 = {sha256}\n{more}\n"


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("[tls]\ncertificate = 'c'", "tls.key"),
        ("[tls]\nkey = 'k'", "tls.certificate"),
        ("[tls]\ncertificate = 'c'\nkey = 'k'\nrevoked = 'r'", "tls.revoked"),
        (
            "[tls]\ncertificate = 'c'\nkey = 'k'\nclient_ca = 'a'\nclient_certificates = 'optional'",
            "tls.client_certificates",
        ),
        ("[tls]\ncertificate = 'c'\nkey = 'k'\npassword = 'p'", "tls.password"),
        ("[token]\nname = 'ci'", "token"),
        ("[[token]]\nname = 'ci'", "token[0].sha256"),
        (token(sha256='"the-token-itself"'), "token[0].sha256"),
        (token(name='"two words"'), "token[0].name"),
        (token() + token(sha256=f'"{OTHER}"'), "token[1].name"),
        (token() + token(name='"other"'), "token[1].sha256"),
        (token(more="expires = 2030-01-01T00:00:00"), "token[0].expires"),
        (token(more="expires = 'tomorrow'"), "token[0].expires"),
        ("[jwt]\nissuer = 'i'\naudience = 'a'", "jwt.jwks"),
        (jwt(issuer='""'), "jwt.issuer"),
        (jwt(audience='""'), "jwt.audience"),
        (jwt(algorithms='["HS256"]'), "jwt.algorithms"),
        (jwt(algorithms='["RS256", "none"]'), "jwt.algorithms"),
        (jwt(algorithms="[1]"), "jwt.algorithms"),
        (jwt(algorithms="[]"), "jwt.algorithms"),
        (jwt(leeway="-1"), "jwt.leeway"),
        (jwt(leeway="301"), "jwt.leeway"),
        (jwt(jwks='"http://issuer.example.org/"'), "jwt.jwks"),
        (jwt(jwks='"http://127.0.0.1.example.org/"'), "jwt.jwks"),
        (jwt(jwks='"http://127.0.0.1@example.org/"'), "jwt.jwks"),
        (jwt(jwks='"https:///jwks.json"'), "jwt.jwks"),
        (jwt(jwks='"ftp://127.0.0.1/jwks.json"'), "jwt.jwks"),
        (jwt(jwks='"file:///etc/jwks.json"'), "jwt.jwks"),
        ("[[unix]]\nusers = []", "unix"),
        ("[unix]\nuser = 'root'", "unix.user"),
        ("[unix]\nusers = 'root'", "unix.users"),
        ("[unix]\nusers = ['root', 1000]", "unix.users[1]"),
        ("[unix]\nusers = ['root', 'of-nobody']", "unix.users[1]"),
        ("[unix]\nusers = ['4294967295']", "unix.users[0]"),
    ],
)
def test_setting_that_makes_no_sense_is_refused_by_its_name(tmp_path: Path, content: str, field: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(content)
    with pytest.raises(InvalidArgumentError) as caught:
        read_settings(file)
    assert caught.value.field == field
    assert "the-token-itself" not in str(caught.value)


@pytest.mark.parametrize("jwks", ["http://127.0.0.1:8080/k", "http://[::1]/k", "http://localhost/k", "/etc/keys.json"])
def test_places_for_keys_that_are_accepted(jwks: str) -> None:
    settings = WebTokenSettings(issuer="i", audience="a", jwks=jwks)
    assert (settings.file is None) == jwks.startswith("http")


@pytest.mark.parametrize(
    ("content", "users"),
    [("[unix]", None), ("[unix]\nusers = []", set()), ("[unix]\nusers = ['root', '1000', '0']", {0, 1000})],
)
def test_users_are_read_by_name_or_number(tmp_path: Path, content: str, users: set[int] | None) -> None:
    file = tmp_path / "config.toml"
    file.write_text(content)
    settings = read_settings(file)
    assert settings.unix == UnixSettings(users=None if users is None else frozenset(users))
    assert settings.identifies
