"""The few calls of the Docker Engine's HTTP API that the set-up needs, over its unix or TCP socket."""

import http.client
import json
import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode, urlsplit

from tests.engine.errors import EngineError

Query = Mapping[str, str | list[str]]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("engine", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """A Docker Engine at a DOCKER_HOST; one connection per call, so that a restarted engine needs no care."""

    def __init__(self, docker_host: str) -> None:
        self.docker_host = docker_host

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        content: object = None,
        stream: BinaryIO | None = None,
        timeout: float = 120,
    ) -> bytes:
        """Makes one call and returns the body of the answer.

        Args:
            method: The HTTP method.
            path: What follows the host, without a version: `/containers/json`.
            query: Parameters of the path.
            content: A body to send as JSON.
            stream: A body to send as it is, from a seekable file.
            timeout: Seconds for each wait on the socket.

        Raises:
            EngineError: Not reachable, or the answer is an error (with what the engine says).
        """
        body: bytes | BinaryIO | None = stream
        headers = {"Content-Type": "application/x-tar"}
        if stream is not None:
            headers["Content-Length"] = str(stream.seek(0, os.SEEK_END))
            stream.seek(0)
        else:
            body = None if content is None else json.dumps(content).encode()
            headers["Content-Type"] = "application/json"
        connection = self._connection(timeout)
        try:
            connection.request(method, f"{path}?{urlencode(query, doseq=True)}" if query else path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"{method} {path} at {self.docker_host}: {error!r}") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise EngineError(
                f"{method} {path} at {self.docker_host}: {answer.status} {data.decode(errors='replace').strip()}"
            )
        return data

    def json(self, method: str, path: str, **options: Any) -> Any:
        """As `request`, and decodes the answer; None for an empty one."""
        return json.loads(self.request(method, path, **options) or b"null")

    def progress(self, method: str, path: str, **options: Any) -> None:
        """As `request`, for the calls that answer 200 with a stream of messages, in which an error may hide."""
        for line in self.request(method, path, **options).splitlines():
            if line.strip() and "error" in (message := json.loads(line)):
                raise EngineError(f"{method} {path} at {self.docker_host}: {message['error']}")

    def answers(self, *, timeout: float = 5) -> bool:
        """Whether the engine answers within `timeout` seconds."""
        try:
            self.request("GET", "/_ping", timeout=timeout)
        except EngineError:
            return False
        return True

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        where = urlsplit(self.docker_host)
        if where.scheme == "unix":
            return _UnixConnection(self.docker_host.removeprefix("unix://"), timeout)
        if where.scheme != "tcp" or not where.hostname:
            raise EngineError(f"DOCKER_HOST={self.docker_host}: the tests speak unix:///… and tcp://host:port")
        if not os.environ.get("DOCKER_TLS_VERIFY"):
            return http.client.HTTPConnection(where.hostname, where.port or 2375, timeout=timeout)
        certificates = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
        context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
        context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
        return http.client.HTTPSConnection(where.hostname, where.port or 2376, timeout=timeout, context=context)
