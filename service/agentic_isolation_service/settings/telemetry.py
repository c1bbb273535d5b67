"""`[metrics]` and `[tracing]`: what others are told of the service while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.settings.listening import split_host_port
from agentic_isolation_service.settings.tables import Types, checked

_METRICS: dict[str, Types] = {"address": (str,)}
_TRACING: dict[str, Types] = {"endpoint": (str,), "service_name": (str,), "sample_ratio": (int, float)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingSettings:
    """Where spans of calls are sent. What is None here, OpenTelemetry takes from its own variables (OTEL_…).

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it.
    """

    endpoint: str | None = None
    """URL of what takes spans by OTLP over gRPC, for example http://127.0.0.1:4317. With https it is TLS."""
    service_name: str | None = None
    """What the service is called in traces."""
    sample_ratio: float | None = None
    """The share of traces that begin here and are recorded, 0 to 1. For others their beginning decides."""

    def __post_init__(self) -> None:
        if self.endpoint is not None and not _is_web_address(self.endpoint):
            raise InvalidArgumentError(f"{self.endpoint!r} is no URL of http or https", field="endpoint")
        if self.service_name == "":
            raise InvalidArgumentError("give it a name, or leave it out", field="service_name")
        if self.sample_ratio is not None and not 0 <= self.sample_ratio <= 1:
            raise InvalidArgumentError(f"{self.sample_ratio:g} is not from 0 to 1", field="sample_ratio")


def _is_web_address(text: str) -> bool:
    try:
        url = urlsplit(text)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.netloc)


def metrics_address_of(table: object) -> str:
    """Returns where the table `[metrics]` wants metrics to be served.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it.
    """
    settings = checked(table, _METRICS)
    if "address" not in settings:
        raise InvalidArgumentError('say where, for example address = "127.0.0.1:9464"', field="address")
    split_metrics_address(settings["address"])
    return str(settings["address"])


def tracing_of(table: object) -> TracingSettings:
    """Returns what the table `[tracing]` says.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it.
    """
    return TracingSettings(**checked(table, _TRACING))


def split_metrics_address(address: str, *, field: str = "address") -> tuple[str, int]:
    """Returns host and port of an address for metrics.

    Raises:
        InvalidArgumentError: It is not host:port.
    """
    found = split_host_port(address)
    if found is None:
        raise InvalidArgumentError(f"{address!r} is not host:port, for example 127.0.0.1:9464", field=field)
    return found
