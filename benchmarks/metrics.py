"""What the figures are: names, units, which way is better, and what each is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_ENGINE_CLIENT = {"runc": "aiodocker/runc", "gvisor": "aiodocker/gvisor"}
_ANYTHING = _ENGINE_CLIENT | {"local": "subprocess/host", "host": "subprocess/host"}
_COLD = {"runc": "aiodocker/runc", "gvisor": "aiodocker/gvisor"}


@dataclass(frozen=True, slots=True)
class Metric:
    """A kind of figure."""

    title: str
    unit: str
    higher: bool = False
    """Whether more is better."""
    references: Mapping[str, str] | None = None
    """The contender that others are compared with, by the place that they run in."""

    def reference(self, contender: str) -> str | None:
        """Returns whom a contender is compared with in this metric."""
        reference = (self.references or {}).get(contender.rpartition("/")[2])
        return None if reference == contender else reference


METRICS: Mapping[str, Metric] = {
    "create_ms": Metric("create, until it is ready", "ms", references=_COLD),
    "first_result_ms": Metric("create and a first command", "ms", references=_COLD),
    "destroy_ms": Metric("destroy", "ms", references=_COLD),
    "execute_ms": Metric("a command: true", "ms", references=_ANYTHING),
    "per_second_1": Metric("commands per second, 1 in flight", "/s", higher=True, references=_ANYTHING),
    "per_second_16": Metric("commands per second, 16 in flight", "/s", higher=True, references=_ANYTHING),
    "per_second_64": Metric("commands per second, 64 in flight", "/s", higher=True, references=_ANYTHING),
    "first_line_ms": Metric("a command's first line", "ms", references=_ANYTHING),
    "line_ms": Metric("each line of a stream, from its print to the client", "ms", references=_ANYTHING),
    "clock_ahead_ms": Metric("by how much the place's clock is ahead", "ms"),
    "clock_within_ms": Metric("how exactly that is known", "ms"),
    "bulk_mib_s": Metric("bulk standard output", "MiB/s", higher=True, references=_ANYTHING),
    "file_ms": Metric("a file of 1 MiB, written and read", "ms", references=_COLD),
    "write_mib_s": Metric("a large file, written", "MiB/s", higher=True, references=_COLD),
    "read_mib_s": Metric("a large file, read", "MiB/s", higher=True, references=_COLD),
    "service_pss_kib": Metric("memory of the service for each idle workspace, PSS", "KiB"),
    "service_rss_kib": Metric("memory of the service for each idle workspace, RSS", "KiB"),
    "guest_rss_kib": Metric("memory of a workspace's guest, RSS", "KiB"),
    "guest_pss_kib": Metric("memory of a workspace's guest, PSS", "KiB"),
    "shim_rss_kib": Metric("memory of its idle shims, RSS", "KiB"),
    "shim_pss_kib": Metric("memory of its idle shims, PSS", "KiB"),
    "bridge_rss_kib": Metric("memory of the bridge to it, RSS", "KiB"),
    "bridge_pss_kib": Metric("memory of the bridge to it, PSS", "KiB"),
    "engine_rss_kib": Metric("memory of the engine's processes for it, RSS", "KiB"),
    "engine_pss_kib": Metric("memory of the engine's processes for it, PSS", "KiB"),
    "busy_ms": Metric("a command in each of the busy workspaces at a time", "ms"),
    "busy_per_second": Metric("commands per second in the busy workspaces", "/s", higher=True),
    "crowd_ms": Metric("the same beside the idle ones", "ms"),
    "crowd_per_second": Metric("the same beside the idle ones", "/s", higher=True),
    "creates_per_second": Metric("creates per second, 8 in flight", "/s", higher=True),
    "stream_line_ms": Metric("a line of many streams, one a second each", "ms"),
    "stream_lines_lost": Metric("lines of these streams that did not come", ""),
    "service_start_ms": Metric("service start, until it listens", "ms"),
    "import_ms": Metric("import", "ms"),
}
"""In the order in which they are reported."""
