"""The public keys of an issuer of tokens at an address."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import aiohttp

from agentic_isolation.errors import UnavailableError
from agentic_isolation_service.rpc.authentication.key_sets import Keys, parse_keys

_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
_MAX_BYTES = 1 << 20
_TIMEOUT = 5.0
"""Seconds that fetching may take."""
_PATIENCE = 8.0
"""Seconds that a call waits for it: names are looked up besides."""
_AGE = 300.0
"""Seconds after which keys are fetched again, so that ones which were taken back are not taken any more."""
_PAUSE = 10.0
"""Seconds between two attempts to fetch: whoever shows made-up key ids must not make us ask for each."""
_log = logging.getLogger(__name__)


class RemoteKeys:
    """Keys at an address, fetched when they are first needed. When they cannot be had again, the last ones stay.

    Args:
        address: https, or http on this machine.
        algorithms: Those that keys are wanted for.
        pause: Seconds between two attempts to fetch.
        timeout: Seconds that one may take.
        age: Seconds after which keys are fetched again.
    """

    def __init__(
        self,
        address: str,
        algorithms: Sequence[str],
        *,
        pause: float = _PAUSE,
        timeout: float = _TIMEOUT,
        age: float = _AGE,
    ) -> None:
        self._address = address
        self._algorithms = tuple(algorithms)
        self._pause = pause
        self._timeout = timeout
        self._age = age
        self._keys: Keys | None = None
        self._problem = "there was no answer yet"
        self._asked = float("-inf")
        self._fetching: asyncio.Future[None] | None = None
        self._outdated = False
        """Whether nobody had asked for long when the latest attempt began."""

    async def keys(self, *, renewed: bool = False) -> Keys:
        """Returns the keys. Waited for are the first ones, ones that are asked for, and those after a long pause."""
        since = time.monotonic() - self._asked
        if self._fetching is None and since >= (self._age if self._keys is not None and not renewed else self._pause):
            self._outdated = since >= 2 * self._age
            self._begin()
        if self._fetching is not None and (self._keys is None or renewed or self._outdated):
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
            # A loop of its own, for as long as it takes: nobody has to see to its end.
            self._keys = parse_keys(asyncio.run(_downloaded(self._address, self._timeout)), self._algorithms)
            self._problem = ""
        except (OSError, aiohttp.ClientError, ValueError) as error:
            self._problem = str(error) or type(error).__name__
            _log.error("the key set at %s cannot be had: %s", self._address, self._problem)


async def _downloaded(address: str, timeout: float) -> bytes:
    """Returns what lies at an address.

    Raises:
        OSError, ClientError: It cannot be had in time.
        ValueError: It is too large.
    """
    is_on_this_machine = urlsplit(address).scheme == "http"
    authorities = ssl.create_default_context()  # those that the machine has now: aiohttp would keep the first ones
    data = b""
    try:
        async with (
            # Proxies are those of the environment.
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=timeout), trust_env=not is_on_this_machine, auto_decompress=False
            ) as session,
            # Where a redirection leads was not configured.
            session.get(address, headers=_HEADERS, ssl=authorities, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise OSError(f"the answer was HTTP {response.status}")
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > _MAX_BYTES:
                    raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
    except TimeoutError:
        raise TimeoutError(f"it took longer than {timeout:g} s") from None
    return data
