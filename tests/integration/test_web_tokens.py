"""JSON Web Tokens: right ones are let in, the attempts that are known against such tokens are not, and keys change."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agentic_isolation import Credentials, UnauthenticatedError, UnavailableError
from agentic_isolation.service import ServiceClient
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.tokens import StaticTokens
from agentic_isolation_service.rpc.authentication.bearer import BearerTokens
from agentic_isolation_service.rpc.authentication.layer import Authentication
from agentic_isolation_service.rpc.authentication.remote_keys import RemoteKeys
from agentic_isolation_service.rpc.authentication.web_tokens import WebTokens
from agentic_isolation_service.settings.file import FileSettings
from agentic_isolation_service.settings.web_tokens import DEFAULT_ALGORITHMS, WebTokenSettings
from tests.integration.identified import Identified, identified
from tests.support import certificates
from tests.support.eventually import eventually
from tests.support.issuer import AUDIENCE, ISSUER, Issuer, key_server, public_pem


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    issuer = Issuer()
    for kid, algorithm in (
        ("rsa", "RS256"),
        ("ec", "ES256"),
        ("ed", "EdDSA"),
        ("next", "ES256"),
        ("unlisted", "ES256"),
    ):
        issuer.add(kid, algorithm)
    return issuer


LISTED = ("rsa", "ec", "ed")


def served_by(jwks: Path | str, **settings: Any) -> contextlib.AbstractAsyncContextManager[Identified]:
    jwt = WebTokenSettings(issuer=ISSUER, audience=AUDIENCE, jwks=str(jwks), **settings)
    return identified(ServiceConfig(address="127.0.0.1:0", file=FileSettings(jwt=jwt)))


def asking_at_will(
    address: str, *, timeout: float = 5, age: float = 300
) -> contextlib.AbstractAsyncContextManager[Identified]:
    """Runs a service that asks for keys as often as it likes."""
    keys = RemoteKeys(address, DEFAULT_ALGORITHMS, pause=0, timeout=timeout, age=age)
    signed = WebTokens(keys, issuer=ISSUER, audience=AUDIENCE, algorithms=DEFAULT_ALGORITHMS, leeway=0)
    authentication = Authentication([BearerTokens(StaticTokens(()), signed)])
    return identified(ServiceConfig(address="127.0.0.1:0"), authentication=authentication)


@pytest.fixture
async def asking(issuer: Issuer, tmp_path: Path) -> AsyncIterator[Identified]:
    (tmp_path / "jwks.json").write_text(issuer.key_set(*LISTED))
    async with served_by(tmp_path / "jwks.json") as asking:
        yield asking


async def asked(asking: Identified, token: str) -> None:
    async with ServiceClient(asking.target, credentials=Credentials(token=token), retry_timeout=0) as client:
        await client.info()


def encoded(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def claims(**more: Any) -> dict[str, Any]:
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "builder", "exp": int(time.time()) + 300} | more


def unsigned(_: Issuer) -> str:
    return f"{encoded({'alg': 'none', 'kid': 'rsa'})}.{encoded(claims())}."


def signed_with_the_public_key(issuer: Issuer) -> str:
    said = f"{encoded({'alg': 'HS256', 'kid': 'rsa'})}.{encoded(claims())}"
    mac = hmac.new(public_pem(issuer.keys["rsa"][1]), said.encode(), hashlib.sha256).digest()
    return f"{said}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def altered(issuer: Issuer) -> str:
    header, _, signature = issuer.token("ec").split(".")
    return f"{header}.{encoded(claims(sub='another'))}.{signature}"


def another_algorithm(issuer: Issuer) -> str:
    _, body, signature = issuer.token("rsa").split(".")
    return f"{encoded({'alg': 'ES256', 'kid': 'rsa'})}.{body}.{signature}"


@pytest.mark.parametrize("kid", LISTED)
async def test_signed_token_is_let_in(asking: Identified, issuer: Issuer, kid: str) -> None:
    for _ in range(2):  # the second time it is remembered
        await asked(asking, issuer.token(kid, aud=["another", AUDIENCE]))
    assert [caller.identity for caller in asking.callers] == [f"jwt:{ISSUER}#builder"] * 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (unsigned, "is not signed with one of RS256, ES256, EdDSA"),
        (signed_with_the_public_key, "is not signed with one of"),
        (altered, "signature that is not its issuer's"),
        (another_algorithm, "a key that is not"),
        (lambda issuer: issuer.token("unlisted"), "a key that is not"),
        (lambda issuer: issuer.token("unlisted", header={"kid": "ec"}), "signature that is not its issuer's"),
        (lambda issuer: issuer.token("ec", exp=time.time() - 31), "has expired"),
        (lambda issuer: issuer.token("ec", nbf=time.time() + 60), "is not valid yet"),
        (lambda issuer: issuer.token("ec", aud="another"), f"is for another audience than '{AUDIENCE}'"),
        (lambda issuer: issuer.token("ec", iss="https://evil.example.org"), f"is of another issuer than '{ISSUER}'"),
        (lambda issuer: issuer.token("ec", without="exp"), "has no 'exp'"),
        (lambda issuer: issuer.token("ec", without="aud"), "has no 'aud'"),
        (lambda issuer: issuer.token("ec", without="sub"), "has no 'sub'"),
        (lambda issuer: issuer.token("ec", sub=""), "has an empty 'sub'"),
        (lambda issuer: issuer.token("ec", header={"crit": ["exp"]}), "is no JSON Web Token|is malformed"),
        (lambda issuer: "a.b.c", "is no JSON Web Token"),
        (lambda issuer: "..", "is no JSON Web Token"),
        (lambda issuer: issuer.token("ec") + ".x", "does not know this token"),
    ],
)
async def test_any_other_is_refused(
    asking: Identified, issuer: Issuer, make: Callable[[Issuer], str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = make(issuer)
    with pytest.raises(UnauthenticatedError, match=words) as caught:
        await asked(asking, token)
    assert not asking.callers
    if len(token) > 20:
        assert token.split(".")[1] not in str(caught.value) + caplog.text


async def test_remembered_token_expires_all_the_same(issuer: Issuer, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(issuer.key_set("ec"))
    async with served_by(tmp_path / "jwks.json", leeway=0) as asking:
        token = issuer.token("ec", exp=int(time.time()) + 2)
        await asked(asking, token)

        async def has_expired() -> bool:
            try:
                await asked(asking, token)
            except UnauthenticatedError as error:
                return "has expired" in error.message
            return False

        await eventually(has_expired, "the token has expired")


async def test_keys_in_a_file_are_rotated(issuer: Issuer, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(issuer.key_set("ec"))
    async with served_by(file) as asking:
        old, new = issuer.token("ec"), issuer.token("next")
        await asked(asking, old)
        with pytest.raises(UnauthenticatedError):
            await asked(asking, new)
        file.write_text(issuer.key_set("next"))
        await asked(asking, new)  # at once: the file is looked at for a key that is not known
        with pytest.raises(UnauthenticatedError, match="no longer"):
            await asked(asking, old)
        file.write_text("{")
        await asked(asking, new)


async def test_keys_at_an_address_are_rotated(issuer: Issuer) -> None:
    async with key_server(issuer.key_set("ec")) as server, asking_at_will(server.address) as asking:
        await asked(asking, issuer.token("ec"))
        await asked(asking, issuer.token("ec"))
        assert server.asked == 1
        server.body = issuer.key_set("next")
        await asked(asking, issuer.token("next"))
        assert server.asked == 2
        with pytest.raises(UnauthenticatedError, match="no longer"):
            await asked(asking, issuer.token("ec"))
        # An issuer that is away does not lock out those whose keys are known.
        server.status = "503 Service Unavailable"
        await asked(asking, issuer.token("next"))
        with pytest.raises(UnauthenticatedError):
            await asked(asking, issuer.token("ec"))
        await asked(asking, issuer.token("next"))


async def test_key_that_has_the_name_of_the_one_before_it_is_found(issuer: Issuer) -> None:
    """Or none, as that of an issuer with one key: its tokens do not name one that is not there."""
    for kid in ("ec", None):
        old = json.loads(issuer.key_set("ec"))["keys"][0] | {"kid": kid}
        new = json.loads(issuer.key_set("next"))["keys"][0] | {"kid": kid}
        header = {"kid": kid}
        async with key_server(json.dumps({"keys": [old]})) as server, asking_at_will(server.address) as asking:
            await asked(asking, issuer.token("ec", header=header))
            server.body = json.dumps({"keys": [new]})
            await asked(asking, issuer.token("next", header=header))
            with pytest.raises(UnauthenticatedError, match="signature that is not its issuer's"):
                await asked(asking, issuer.token("ec", header=header))


async def test_answer_that_never_comes_to_its_end_is_not_waited_for(issuer: Issuer) -> None:
    """Also where byte after byte of its head comes: else no keys would be fetched again, and no service would end."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            for _ in range(100):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.1)
        writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with asyncio.timeout(5), asking_at_will(address, timeout=1) as asking:
            with pytest.raises(UnavailableError, match="cannot be had: it took longer than 1 s"):
                await asked(asking, issuer.token("ec"))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="install openssl: it makes the certificates")
async def test_keys_are_had_over_https_from_whom_the_machine_trusts(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(certificates.make, tmp_path / "keys")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    await asyncio.to_thread(context.load_cert_chain, tmp_path / "keys/server.pem", tmp_path / "keys/server.key")
    async with key_server(issuer.key_set("ec"), tls=context) as server, asking_at_will(server.address) as asking:
        with pytest.raises(UnavailableError, match="certificate verify failed"):
            await asked(asking, issuer.token("ec"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "keys/ca.pem"))
        await asked(asking, issuer.token("ec"))


async def test_made_up_key_ids_do_not_make_the_service_ask_for_each(issuer: Issuer) -> None:
    async with key_server(issuer.key_set("ec")) as server, served_by(server.address) as asking:
        await asked(asking, issuer.token("ec"))
        for number in range(10):
            with pytest.raises(UnauthenticatedError):
                await asked(asking, issuer.token("ec", header={"kid": f"made-up-{number}"}))
        assert server.asked == 1


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        ("404 Not Found", "", ""),
        ("302 Found", "Location: http://127.0.0.1:1/\r\n", ""),
        ("200 OK", "", "{}"),
        ("200 OK", "", "<html>"),
        ("200 OK", "", json.dumps({"keys": [{"kty": "oct", "kid": "ec", "k": "c2VjcmV0"}]})),
        ("200 OK", "", " " * ((1 << 20) + 1)),
    ],
    ids=["missing", "redirect", "empty", "html", "symmetric", "huge"],
)
async def test_keys_that_cannot_be_had_are_no_fault_of_the_caller(
    issuer: Issuer, status: str, headers: str, body: str
) -> None:
    async with key_server(body) as server, served_by(server.address) as asking:
        server.status, server.headers = status, headers
        with pytest.raises(UnavailableError, match="the keys of the token's issuer cannot be had"):
            await asked(asking, issuer.token("ec"))
        assert not asking.callers


async def test_key_that_was_taken_back_while_nobody_called_is_taken_by_no_call(issuer: Issuer) -> None:
    """The first call after a night would else be let in by the keys of the evening."""
    age = 0.2
    async with key_server(issuer.key_set("ec", "ed")) as served, asking_at_will(served.address, age=age) as asking:
        await asked(asking, issuer.token("ec"))
        served.body = issuer.key_set("ed")
        await asyncio.sleep(2 * age)
        with pytest.raises(UnauthenticatedError, match="no longer, among its issuer's"):
            await asked(asking, issuer.token("ec"))
        served.status = "500 Away"
        await asyncio.sleep(2 * age)
        await asked(asking, issuer.token("ed"))
