"""The public keys of an issuer of tokens (RFC 7517), in a file or at an address; both may be changed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit

import jwt

from agentic_isolation.errors import InvalidArgumentError, UnavailableError
from agentic_isolation_service.rpc.reloading import Reloaded

Keys = Mapping[tuple[str | None, str], jwt.PyJWK]
"""Keys by their id, None for one without, and the algorithm that they are for. A new object after each change."""
_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
"""The `kty` of the keys for an algorithm, by its first letters."""
_MAX_BYTES = 1 << 20
_MAX_KEYS = 1000
_TIMEOUT = 5.0
"""Seconds that fetching may take."""
_LOOK_AGAIN = 0.1
"""Seconds."""
_PATIENCE = 8.0
"""Seconds that a call waits for it: names are looked up besides."""
_AGE = 300.0
"""Seconds after which keys are fetched again, so that ones which were taken back are not taken any more."""
_PAUSE = 10.0
"""Seconds between two attempts to fetch: whoever shows made-up key ids must not make us ask for each."""
_log = logging.getLogger(__name__)


class KeySet(Protocol):
    """Where an issuer's keys come from."""

    async def keys(self, *, renewed: bool = False) -> Keys:
        """Returns the keys.

        Args:
            renewed: Look for newer ones first, as far as there was none lately.

        Raises:
            UnavailableError: There are none yet, and they cannot be had at present.
        """


class FileKeys:
    """Keys in a file. Reads it.

    Raises:
        OSError: It cannot be read.
        InvalidArgumentError: It is no key set.
    """

    def __init__(self, file: Path, algorithms: Sequence[str]) -> None:
        self._reloaded = Reloaded("the issuer's key set", [file], lambda: parse_keys(file.read_bytes(), algorithms))

    async def keys(self, *, renewed: bool = False) -> Keys:
        """Returns the keys in the file."""
        return await self._reloaded.current(at_once=renewed)


class RemoteKeys:
    """Keys at an address, fetched when they are first needed. When they cannot be had again, the last ones stay.

    Args:
        address: https, or http on this machine.
        algorithms: Those that keys are wanted for.
        pause: Seconds between two attempts to fetch.
    """

    def __init__(self, address: str, algorithms: Sequence[str], *, pause: float = _PAUSE) -> None:
        self._address = address
        self._algorithms = tuple(algorithms)
        self._pause = pause
        self._keys: Keys | None = None
        self._problem = "there was no answer yet"
        self._asked = float("-inf")
        self._fetching: asyncio.Future[None] | None = None

    async def keys(self, *, renewed: bool = False) -> Keys:
        """Returns the keys. Only the first ones, and ones that are asked for, are waited for."""
        since = time.monotonic() - self._asked
        if self._fetching is None and since >= (_AGE if self._keys is not None and not renewed else self._pause):
            self._begin()
        if self._fetching is not None and (self._keys is None or renewed):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await asyncio.shield(self._fetching)
        if self._keys is None:
            raise UnavailableError(f"the keys of the token's issuer cannot be had: {self._problem}")
        return self._keys

    def _begin(self) -> None:
        self._asked = time.monotonic()
        # No task: it goes on when the call that has begun it is cancelled, ends by itself, and raises nothing.
        self._fetching = asyncio.get_running_loop().run_in_executor(None, self._fetch)
        self._fetching.add_done_callback(self._end)

    def _end(self, _: object) -> None:
        self._fetching = None

    def _fetch(self) -> None:
        try:
            self._keys = parse_keys(_downloaded(self._address), self._algorithms)
            self._problem = ""
        except (OSError, HTTPException, ValueError) as error:
            self._problem = str(error) or type(error).__name__
            _log.error("the key set at %s cannot be had: %s", self._address, self._problem)


def parse_keys(data: bytes, algorithms: Sequence[str]) -> Keys:
    """Returns the keys in a key set that are for one of these algorithms. Others are passed over, symmetric ones too.

    Raises:
        InvalidArgumentError: It is no key set, or has none of these.
    """
    try:
        content = json.loads(data)
        entries = content["keys"]
        if not isinstance(entries, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidArgumentError("it is no JSON Web Key Set: an object with 'keys'", field="jwt.jwks") from None
    keys: dict[tuple[str | None, str], jwt.PyJWK] = {}
    for entry in entries[:_MAX_KEYS]:
        if isinstance(entry, dict) and entry.get("use", "sig") == "sig":
            keys.update({(entry.get("kid"), name): key for name, key in _usable(entry, algorithms)})
    if not keys:
        raise InvalidArgumentError(f"it has no key for {', '.join(algorithms)}", field="jwt.jwks")
    return keys


def _usable(entry: dict[str, Any], algorithms: Sequence[str]) -> list[tuple[str, jwt.PyJWK]]:
    """Returns an entry's key for each algorithm that it is for."""
    if not isinstance(entry.get("kid"), str | None):
        return []
    found = []
    for name in algorithms:
        if entry.get("kty") == _KINDS[name[:2]] and entry.get("alg", name) == name:
            try:
                key = jwt.PyJWK(entry, algorithm=name)
                if key.Algorithm.check_key_length(key.key):
                    continue  # as short as nobody should trust any more
            except (jwt.PyJWTError, ValueError, TypeError, KeyError):
                continue
            if name[:2] != "ES" or _CURVES[name] == entry.get("crv"):
                found.append((name, key))
    return found


_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        """Follows none: where one leads was not configured."""


class _Bounded(urllib.request.AbstractHTTPHandler):
    """Ends connections whose answer has not begun in time: a socket's own timeout begins anew with each byte."""

    def do_open(self, http_class: Any, req: Any, **arguments: Any) -> Any:
        """Asks over a new connection."""
        connections: list[HTTPConnection] = []

        def made(*values: Any, **named: Any) -> HTTPConnection:
            connections.append(http_class(*values, **named))
            return connections[-1]

        answered = threading.Event()
        watching = threading.Thread(target=_cut_off, args=(connections, answered), daemon=True)
        watching.start()
        try:
            return super().do_open(made, req, **arguments)
        finally:
            answered.set()
            watching.join()


class _BoundedHTTP(_Bounded, urllib.request.HTTPHandler):
    """For http://."""


class _BoundedHTTPS(_Bounded, urllib.request.HTTPSHandler):
    """For https://."""


def _cut_off(connections: Sequence[HTTPConnection], answered: threading.Event) -> None:
    if answered.wait(_TIMEOUT):
        return
    while not answered.wait(_LOOK_AGAIN):
        for connection in connections:
            with contextlib.suppress(OSError, AttributeError):  # it is closed, or not open yet
                connection.sock.shutdown(socket.SHUT_RDWR)


def _downloaded(address: str) -> bytes:
    """Returns what lies at an address. Runs in a thread.

    Raises:
        OSError, HTTPException: It cannot be had in time.
        ValueError: It is too large.
    """
    deadline = time.monotonic() + _TIMEOUT
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect(), _BoundedHTTP(), _BoundedHTTPS()]
    if urlsplit(address).scheme == "http":
        handlers.append(urllib.request.ProxyHandler({}))  # it is on this machine
    request = urllib.request.Request(address, headers={"Accept": "application/json"})
    data = b""
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT) as response:
            while chunk := response.read1(65536):
                data += chunk
                if len(data) > _MAX_BYTES:
                    raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
                if time.monotonic() > deadline:
                    break
    except HTTPError as error:
        error.close()  # it holds the connection
        raise OSError(f"the answer was HTTP {error.code}") from None
    except (OSError, HTTPException):
        if time.monotonic() <= deadline:
            raise
    if time.monotonic() > deadline:
        raise TimeoutError(f"it took longer than {_TIMEOUT:g} s")
    return data
