"""Metrics of a service for Prometheus, served over HTTP as long as the service runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, Info, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from agentic_isolation._version import __version__
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.settings.listening import is_loopback
from agentic_isolation_service.settings.telemetry import split_metrics_address
from agentic_isolation_service.telemetry.calls import CallMetrics
from agentic_isolation_service.telemetry.workspaces import families_of

_PATH = "/metrics"
_MOST_CONNECTIONS = 16
"""The latest of them. Scrapers are few, and anybody who reaches the port may open others and say nothing."""
_log = logging.getLogger(__name__)
_request_log = logging.getLogger(f"{__name__}.requests")


@contextlib.asynccontextmanager
async def measured(workspaces: Workspaces, address: str) -> AsyncIterator[CallMetrics]:
    """Serves the metrics of a service, and yields the layer that measures its calls.

    Args:
        workspaces: The service's.
        address: `host:port`; port 0: any free one, which is told in the log.

    Raises:
        OSError: The address cannot be listened on.
    """
    # One for each service: several in one process have metrics of their own.
    registry = CollectorRegistry()
    Info("agentic_isolation", "The service.", registry=registry).info({"version": __version__})
    ProcessCollector(registry=registry)
    calls = CallMetrics()
    looks = _Looks()
    registry.register(looks)

    async def answer(request: web.Request) -> web.StreamResponse:
        # This thread owns what is looked at; to write it out takes milliseconds, and is done on another one.
        looks.last = [*calls.families(), *families_of(workspaces)]
        encode, content_type = _encoding_for(",".join(request.headers.getall("Accept", [])))
        text = await asyncio.to_thread(encode, registry)
        return web.Response(body=text, headers={"Content-Type": content_type})

    async with _listening(answer, address):
        yield calls


def _encoding_for(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Returns what writes metrics as a request accepts them, and the type of that."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        return choose_encoder("")


class _MalformedRequests(logging.Filter):
    """Keeps back what aiohttp logs of requests that are none: tracebacks with their words, which anybody may send."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether the record is anything else."""
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_request_log.addFilter(_MalformedRequests())


class _Looks(Collector):
    """The last look at a service."""

    def __init__(self) -> None:
        self.last: Sequence[Metric] = ()

    def collect(self) -> Iterable[Metric]:
        """Returns what was found."""
        return self.last


@contextlib.asynccontextmanager
async def _listening(answer: Handler, address: str) -> AsyncIterator[None]:
    host, port = split_metrics_address(address)
    app = web.Application()
    app.router.add_get(_PATH, answer)
    runner = web.AppRunner(app, access_log=None, logger=_request_log, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    listener: asyncio.Server | None = None
    try:
        try:
            # No more are accepted in one turn of the loop than there may be.
            listener = await asyncio.get_running_loop().create_server(
                _few(runner), host, port, backlog=_MOST_CONNECTIONS
            )
        except (OSError, UnicodeError) as error:  # the latter of a host that no name server knows how to spell
            raise OSError(f"cannot serve metrics on {address}: {error}") from error
        shown = f"[{host}]" if ":" in host else host
        _log.info("metrics are at http://%s:%d%s", shown, listener.sockets[0].getsockname()[1], _PATH)
        if not is_loopback(host):
            _log.warning("metrics can be read by anybody who reaches %s: keep others out by a firewall", address)
        yield
    finally:
        if listener is not None:
            listener.close()
        await runner.cleanup()


def _few(runner: web.AppRunner) -> Callable[[], asyncio.BaseProtocol]:
    """Returns what serves a connection, and closes the one that so many were opened after."""
    server = runner.server
    if server is None:
        raise AssertionError("the runner was set up")
    latest: deque[web.RequestHandler] = deque()

    def connected() -> asyncio.BaseProtocol:
        latest.append(server())
        if len(latest) > _MOST_CONNECTIONS:
            latest.popleft().force_close()
        return latest[-1]

    return connected
