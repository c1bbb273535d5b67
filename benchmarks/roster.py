"""The contenders: what they are called, what runs them, and what each is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.containers import LABEL, settings_like_ours

_CONTENDERS = "benchmarks.contenders"


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender."""

    name: str
    """WAY/PLACE, as in served/runc."""
    module: str
    factory: str
    """Name of its class in that module."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    peer: str = ""
    """Name in peers.PEERS, where it needs an interpreter of its own."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineHere:
    """The engine that containers are made in."""

    host: str
    image: str
    cpus: int
    runtimes: frozenset[str]


_RUNTIMES = {"runc": "runc", "gvisor": "runsc"}


def roster(engine: EngineHere | None, run: str) -> Iterator[Entry]:
    """Yields the contenders that can be asked for here, references and ours first, for a run of that name."""
    places = ["local"]
    if engine is not None:
        places += [place for place, runtime in _RUNTIMES.items() if runtime in engine.runtimes]
    yield Entry("subprocess/host", f"{_CONTENDERS}.host", "Subprocess")
    yield Entry("pipe/host", f"{_CONTENDERS}.host", "Pipe")
    yield Entry("echo/embedded", f"{_CONTENDERS}.echo", "UnaryEcho", {"own_process": False})
    yield Entry("echo/served", f"{_CONTENDERS}.echo", "UnaryEcho", {"own_process": True})
    environment = {}
    if engine is not None:
        environment = {"DOCKER_HOST": engine.host, "AGENTIC_ISOLATION_DOCKER_IMAGE": engine.image}
        environment["AGENTIC_ISOLATION_DOCKER_LABELS"] = f"{LABEL}={run}"
    for place in places:
        for way in ("served", "embedded"):
            arguments = {"runtime": place, "served": way == "served"}
            yield Entry(f"{way}/{place}", f"{_CONTENDERS}.ours", "Ours", arguments, environment=environment)
        pool = {"runtime": place}
        yield Entry(f"pool/{place}", f"{_CONTENDERS}.pooled", "Pooled", pool, environment=environment)
    if engine is None:
        return
    settings = settings_like_ours(engine.image, engine.cpus)
    containers = {"host": engine.host, "image": engine.image, "settings": settings, "run": run}
    for place in places[1:]:
        arguments = {"containers": {**containers, "runtime": _RUNTIMES[place]}}
        yield Entry(f"aiodocker/{place}", f"{_CONTENDERS}.aiodocker_exec", "AiodockerExec", arguments)
    arguments = {"containers": {**containers, "runtime": "runc"}}
    yield Entry("docker-cli/runc", f"{_CONTENDERS}.docker_cli", "DockerCli", arguments)
    for peer, module, factory in _PEERS:
        yield Entry(f"{peer}/runc", f"{_CONTENDERS}.{module}", factory, arguments, peer=peer, environment=environment)


_PEERS = (
    ("docker-py", "docker_py", "DockerPy"),
    ("llm-sandbox", "llm_sandbox", "LlmSandbox"),
    ("swe-rex", "swe_rex", "SweRex"),
    ("inspect-ai", "inspect_ai", "InspectAi"),
)
