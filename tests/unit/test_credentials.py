"""Credentials of the client: what is accepted, shown to nobody, and never sent where others could read it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from agentic_isolation import AgenticWorkspace, Credentials, InvalidArgumentError
from agentic_isolation._security import Token
from agentic_isolation.service import ServiceClient

TOKEN = "ais_a-token-that-nobody-sees"


def test_token_is_in_no_repr() -> None:
    assert TOKEN not in repr(Credentials(token=TOKEN))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"token": "two words"}, "credentials.token"),
        ({"token": ""}, "credentials.token"),
        ({"token": "a\r\nx-admin: 1"}, "credentials.token"),
        ({"token": "é"}, "credentials.token"),
        ({"token": "a", "token_file": "b"}, "credentials.token_file"),
        ({"certificate_file": "a"}, "credentials.key_file"),
        ({"key_file": "a"}, "credentials.certificate_file"),
        ({"plaintext": True, "tls": True}, "credentials.plaintext"),
        ({"plaintext": True, "ca_file": "a"}, "credentials.plaintext"),
        ({"plaintext": "yes"}, "credentials.plaintext"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Credentials(**settings)
    assert caught.value.field == field
    assert "admin" not in str(caught.value)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"TOKEN": TOKEN, "TLS_CA": "ca", "TLS_CERTIFICATE": "c", "TLS_KEY": "k", "TLS_SERVER_NAME": "n"}
    for name, value in names.items():
        monkeypatch.setenv(f"AGENTIC_ISOLATION_{name}", value)
    monkeypatch.setenv("AGENTIC_ISOLATION_TOKEN_FILE", "")
    assert Credentials.from_environment() == Credentials(
        token=TOKEN, ca_file="ca", certificate_file="c", key_file="k", server_name="n"
    )
    for name in names:
        monkeypatch.delenv(f"AGENTIC_ISOLATION_{name}")
    assert Credentials.from_environment() == Credentials()
    monkeypatch.setenv("AGENTIC_ISOLATION_TLS", "1")
    assert Credentials.from_environment() == Credentials(tls=True)
    monkeypatch.setenv("AGENTIC_ISOLATION_TLS", "0")
    monkeypatch.setenv("AGENTIC_ISOLATION_PLAINTEXT", "1")
    assert Credentials.from_environment() == Credentials(plaintext=True)


@pytest.mark.parametrize(
    "target", ["service.example.org:50051", "10.0.0.1:50051", "dns:///service:1", "localhost.example.org:1", "[::]:1"]
)
async def test_token_is_never_sent_in_plaintext_to_another_machine(target: str, tmp_path: Path) -> None:
    for credentials in (Credentials(token=TOKEN), Credentials(token_file=tmp_path / "there-is-none")):
        with pytest.raises(InvalidArgumentError, match="plaintext") as caught:
            ServiceClient(target, credentials=credentials)
        assert caught.value.field == "credentials.token"
        with pytest.raises(InvalidArgumentError, match="plaintext"):
            async with AgenticWorkspace.create(provider="local", target=target, credentials=credentials):
                pass


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot be read"), ("", "printable"), ("two words", "printable")]
)
async def test_token_file_that_holds_none_is_told(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    async with ServiceClient("127.0.0.1:1", credentials=Credentials(token_file=file), retry_timeout=0) as client:
        with pytest.raises(InvalidArgumentError, match=words) as caught:
            await client.info()
    assert caught.value.field == "credentials.token_file"


async def test_token_that_becomes_readable_after_it_was_replaced_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the new file is root's at first: chmod(2) and chown(2) change neither its size nor its time."""
    file = tmp_path / "token"
    file.write_text("old")
    token = Token(Credentials(token_file=file))
    assert await token.metadata() == (("authorization", "Bearer old"),)
    monkeypatch.setattr("agentic_isolation._security._PAUSE", 0)
    file.write_text("new!")
    with monkeypatch.context() as forbidden:

        def refuse(path: Path) -> bytes:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

        forbidden.setattr(Path, "read_bytes", refuse)
        assert await token.metadata() == (("authorization", "Bearer old"),)
    assert await token.metadata() == (("authorization", "Bearer new!"),)


async def test_broken_files_of_tls_are_told(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    credentials = Credentials(ca_file=tmp_path / "ca.pem")
    async with ServiceClient("127.0.0.1:1", credentials=credentials, retry_timeout=0) as client:
        with pytest.raises(InvalidArgumentError, match="no certificates") as caught:
            await client.info()
    assert caught.value.field == "credentials.ca_file"
