"""The connection to a Docker Engine, and its refusals as errors of the tree."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp

from agentic_isolation.errors import IsolationError, ProviderUnavailableError

DEFAULT_HOST = "unix:///var/run/docker.sock"
CALL_TIMEOUT = 60.0
"""Seconds that the engine may take for one answer."""
LOOK_TIMEOUT = 30.0
"""Seconds that it may take to say what it is or has; an engine that takes longer is stopped or stuck."""
CONNECT_TIMEOUT = 10.0
"""Seconds."""
FACTS_AGE = 30.0
"""Seconds for which what an engine is counts as known: runtimes are registered and taken away while it runs."""
_KEEPALIVE = 1.0
"""Seconds that an idle TCP connection is kept: enough for a burst of calls, and hardly one that a restart breaks."""
_MAX_MESSAGE = 500
SERVER_FAILS = 500
"""The status from which on an answer is the engine's failure, not its word."""
NOT_CONNECTED = 900
"""What aiodocker puts in place of a status when there was no answer."""
_log = logging.getLogger(__name__)
_PASSWORD = re.compile(r"(://[^/@:]*):[^/@]*@")


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine is."""

    architecture: str
    """As `uname -m`."""
    runtimes: frozenset[str]
    default_runtime: str
    cpus: int
    """How many it has; it refuses a limit beyond them."""


class Engine:
    """An engine at `host`, as DOCKER_HOST spells it: unix://PATH, tcp://HOST:PORT, ssh:// through aiodocker's own.

    DOCKER_TLS_VERIFY and DOCKER_CERT_PATH apply to tcp as they do for the docker command line.
    """

    def __init__(self, host: str | None = None) -> None:
        self._url = host or os.environ.get("DOCKER_HOST") or DEFAULT_HOST
        self.host = _PASSWORD.sub(r"\1:***@", self._url)
        """The engine as errors and logs name it: without the password of ssh://USER:PASSWORD@HOST."""
        self._client: aiodocker.Docker | None = None
        self._connector: aiohttp.BaseConnector | None = None
        self._asking: asyncio.Task[EngineFacts] | None = None
        self._asked = 0.0
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[aiodocker.Docker]:
        """Yields the client; what breaks on the way is a ProviderUnavailableError that names the host.

        DockerErrors below 500, which are answers, are the caller's to handle.
        """
        async with self._lock:
            if self._client is None:
                try:
                    self._client = await self._connect()
                except (OSError, ValueError, ImportError) as error:
                    raise self._unusable(str(error)) from error
                except aiodocker.DockerError as error:  # such as that it lacks a package for ssh
                    raise self._unusable(error.message) from error
        with self._translated():
            yield self._client

    @contextlib.contextmanager
    def refusals(self, what: str) -> Iterator[None]:
        """Makes a ProviderUnavailableError of the DockerErrors that `client` leaves to its caller.

        Args:
            what: What the engine does then, for example "refuses to do it".
        """
        try:
            yield
        except aiodocker.DockerError as error:
            if error.status >= SERVER_FAILS:
                raise
            raise ProviderUnavailableError(f"the Docker Engine at {self.host} {what}: {error.message}") from error

    async def facts(self) -> EngineFacts:
        """Returns what the engine is, asked at most FACTS_AGE ago, and once for all who want to know.

        Raises:
            ProviderUnavailableError: It cannot be reached.
        """
        asking = self._asking
        if asking is None or (asking.done() and (asking.cancelled() or asking.exception() or self._is_outdated())):
            # In no call's context, as it may outlive the call that has asked first.
            asking = self._asking = asyncio.create_task(self._ask(), name="docker-facts", context=Context())
            asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # all who asked may have gone
        return await asyncio.shield(asking)

    async def aclose(self) -> None:
        """Closes the connection; may be called twice."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
            await asyncio.wait([asking])
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        if self._connector is not None:
            await self._connector.close()

    async def _ask(self) -> EngineFacts:
        self._asked = time.monotonic()
        try:
            async with self.client() as client, asyncio.timeout(LOOK_TIMEOUT):
                return _facts_of(await client.system.info())
        except aiodocker.DockerError as error:
            raise self._unusable(f"it answers {error.status}: {error.message[:_MAX_MESSAGE]}") from error

    def _is_outdated(self) -> bool:
        return time.monotonic() - self._asked >= FACTS_AGE

    async def _connect(self) -> aiodocker.Docker:
        # aiohttp's default of 100 connections would stop at 100 workspaces: each holds one for its bridge.
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT, connect=CONNECT_TIMEOUT)
        scheme, _, path = self._url.partition("://")
        connector: aiohttp.BaseConnector | None = None
        host = self._url
        if scheme == "unix":
            connector = aiohttp.UnixConnector(path, limit=0, force_close=True)  # to open another costs nothing
        elif scheme in ("tcp", "http", "https"):
            context = await asyncio.to_thread(_tls_context)
            tls = context if context is not None else True
            connector = aiohttp.TCPConnector(ssl=tls, limit=0, keepalive_timeout=_KEEPALIVE)
            if context is not None:
                host = f"https://{path}"
        elif scheme == "npipe":
            raise ValueError("named pipes are of Windows alone")
        self._connector = connector
        client = aiodocker.Docker(url=host, connector=connector, timeout=timeout)
        if scheme == "unix":
            # What aiodocker itself does, but only with a connector of its own.
            client.docker_host = "unix://localhost"
        return client

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except aiodocker.DockerError as error:
            if error.status < SERVER_FAILS:
                raise
            if error.status == NOT_CONNECTED:
                raise self._unreachable(error.__cause__ or error.__context__ or error) from error
            raise ProviderUnavailableError(
                f"the Docker Engine at {self.host} failed with {error.status}: {error.message[:_MAX_MESSAGE]}"
            ) from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise self._unreachable(error) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self._unusable(f"it answers what is no JSON: {error}") from error
        except IsolationError:
            raise  # some are ValueErrors, too
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            # JSON of another shape than the engine's API has. A defect of ours would look the same: this says where.
            _log.debug("an answer of the engine that does not fit", exc_info=True)
            found = f"{type(error).__name__}: {error}"[:_MAX_MESSAGE]
            raise self._unusable(
                f"what answers there is no Docker Engine, as it says something else: {found}"
            ) from error

    def _unreachable(self, error: BaseException) -> ProviderUnavailableError:
        if isinstance(error, TimeoutError):
            return ProviderUnavailableError(
                f"the Docker Engine at {self.host} does not answer in time; see whether it is stopped or overloaded"
            )
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
            return ProviderUnavailableError(
                f"the Docker Engine at {self.host} cannot be reached ({error.strerror}); "
                "let this program's user into the group of the socket, or set DOCKER_HOST to one that it may use"
            )
        cause = error.strerror if isinstance(error, OSError) else str(error)
        return ProviderUnavailableError(
            f"the Docker Engine at {self.host} cannot be reached ({cause or type(error).__name__}); "
            "start it, or set DOCKER_HOST to one that runs"
        )

    def _unusable(self, cause: str) -> ProviderUnavailableError:
        return ProviderUnavailableError(
            f"the Docker Engine at {self.host} cannot be used ({cause}); "
            "check DOCKER_HOST, and with TLS DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"
        )


def _facts_of(info: Any) -> EngineFacts:
    """Returns what an engine says that it is; raises LookupError, TypeError or AttributeError where that is none."""
    info["ServerVersion"]
    facts = EngineFacts(
        architecture=info.get("Architecture", ""),
        runtimes=frozenset(info.get("Runtimes") or {}),
        default_runtime=info.get("DefaultRuntime", ""),
        cpus=info.get("NCPU", 0),
    )
    if not (isinstance(facts.architecture, str) and isinstance(facts.default_runtime, str)):
        raise TypeError("Architecture and DefaultRuntime are words")
    if not isinstance(facts.cpus, int):
        raise TypeError("NCPU is a number")
    return facts


def _tls_context() -> ssl.SSLContext | None:
    if os.environ.get("DOCKER_TLS_VERIFY", "") in ("", "0"):
        return None
    directory = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    ca, certificate, key = (directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
    for path in (ca, certificate, key):
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")  # ssl's own error does not name it
    try:
        context = ssl.create_default_context(cafile=str(ca))
    except ssl.SSLError as error:
        raise ValueError(f"{ca} holds no certificates in PEM") from error
    try:
        context.load_cert_chain(str(certificate), str(key), password=lambda: "")  # nobody could enter one
    except ssl.SSLError as error:
        raise ValueError(f"{key} is not, in PEM and without a passphrase, the key of {certificate}") from error
    return context
