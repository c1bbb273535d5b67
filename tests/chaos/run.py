"""One chaos run: everything comes up, clients work, faults happen, all is mended, leases end, and it is judged."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from agentic_isolation_service.config import IMAGE_VARIABLE, LABELS_VARIABLE
from tests.chaos.checker import check
from tests.chaos.clients import Clients
from tests.chaos.faults import Faults
from tests.chaos.findings import Findings, complaints
from tests.chaos.history import history
from tests.chaos.journal import Journal
from tests.chaos.network import NetworkPath
from tests.chaos.report import Report, report
from tests.chaos.service import Service
from tests.chaos.settings import LEASE, RUN_LABEL, RUNTIMES, Settings
from tests.engine import Engine
from tests.support import engine_leaks
from tests.support.engine_proxy import EngineProxy
from tests.support.eventually import eventually
from tests.support.proc import belonging_to
from tests.support.program import python_environment

_LEASE_SLACK = 15.0
"""Seconds that a workspace may take to be gone after its lease has ended, on a busy machine."""
_NEVER_STARTED = "created"
"""The engine's word for the state of such containers."""
_REMAINS = "agentic-isolation-*"
"""The names of temporary directories of the service and of clients."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """All that runs."""

    label: str
    directory: Path
    network: NetworkPath
    service: Service
    clients: Clients
    faults: Faults
    findings: Findings


async def run(settings: Settings, engine: Engine) -> Report:
    """Runs it. The evidence lies in `settings.evidence` afterwards, and nothing else is left."""
    began = time.monotonic()
    fault_journal = settings.evidence / "faults.jsonl"
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        async with _stage(settings, engine, Path(directory), fault_journal, findings) as stage:
            await _load(stage, settings.minutes * 60)
            await stage.clients.finish()
            known = history(stage.clients.journals, fault_journal, stage.clients.killed)
            await stage.faults.read_logs({reading for each in known.operations if (reading := each.workspace)})
            await stage.service.forsake_pools()
            await _leases_end(engine, stage)
            await stage.service.stop()
            _nobody_complains(settings.evidence, findings)
        never_started = await asyncio.to_thread(_never_started, engine, stage.label)
        held_for_nobody = await _nothing_is_left(engine, stage)
    whole = history(stage.clients.journals, fault_journal, stage.clients.killed)
    return report(
        settings,
        whole,
        seconds=time.monotonic() - began,
        faults=stage.faults.counts,
        never_started=never_started,
        held_for_nobody=held_for_nobody,
        connections=stage.network.connection_count,
        megabytes=stage.network.byte_count / 1e6,
        violations=sorted([*findings.violations, *check(whole)], key=lambda each: each.at),
    )


@contextlib.asynccontextmanager
async def _stage(
    settings: Settings, engine: Engine, directory: Path, fault_journal: Path, findings: Findings
) -> AsyncIterator[_Stage]:
    label = f"{RUN_LABEL}={uuid.uuid4().hex}"
    temporary = directory / "tmp"
    temporary.mkdir()
    chance = random.Random(f"{settings.seed}/faults")
    async with contextlib.AsyncExitStack() as stack:
        journal = stack.enter_context(Journal(fault_journal))
        proxy = await stack.enter_async_context(EngineProxy(engine, at=directory / "engine.sock"))
        environment = python_environment(TMPDIR=str(temporary), GRPC_VERBOSITY="ERROR")
        of_engine = {
            "DOCKER_HOST": proxy.docker_host,
            IMAGE_VARIABLE: engine.images.python,
            LABELS_VARIABLE: label,
        }
        service = await stack.enter_async_context(
            Service(
                directory,
                settings.evidence,
                RUNTIMES[settings.runtime],
                environment | of_engine,
                findings,
                chance,
            )
        )
        network = await stack.enter_async_context(NetworkPath(service.port))
        clients = await stack.enter_async_context(
            Clients(
                settings.clients,
                seed=settings.seed,
                target=f"127.0.0.1:{network.port}",
                runtimes=RUNTIMES[settings.runtime],
                evidence=settings.evidence,
                environment=environment,
                findings=findings,
            )
        )
        faults = Faults(
            engine,
            label,
            proxy=proxy,
            network=network,
            service=service,
            clients=clients,
            journal=journal,
            findings=findings,
            chance=chance,
        )
        yield _Stage(label, directory, network, service, clients, faults, findings)


async def _load(stage: _Stage, seconds: float) -> None:
    """Has everything happen for so long. Afterwards all is mended."""
    watching = (stage.service.watch(), stage.clients.watch(), stage.faults.watch_machine())
    watchers = [asyncio.create_task(each) for each in watching]
    try:
        await stage.faults.inflict(seconds)
    finally:
        for watcher in watchers:
            watcher.cancel()
        for outcome in await asyncio.gather(*watchers, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


def _nobody_complains(evidence: Path, findings: Findings) -> None:
    """No process of the service has told of a defect of its own."""
    for log in sorted(evidence.glob("service-*.log")):
        if found := complaints(log):
            findings.add("complaint", f"{log.name} has {len(found)} complaints, the first: {found[0]}")


async def _leases_end(engine: Engine, stage: _Stage) -> None:
    """Waits until the workspaces that nobody has destroyed have ended by themselves."""
    with contextlib.suppress(AssertionError):
        await eventually(lambda: not _living(engine, stage.label), "leases have ended", within=LEASE + _LEASE_SLACK)
    for words in await asyncio.to_thread(_living, engine, stage.label):
        stage.findings.add("left in the engine", f"{words}, {LEASE + _LEASE_SLACK:g} s after the last client has ended")


def _living(engine: Engine, label: str) -> list[str]:
    """Containers that were started. One that never was has no guest to end it, and is the sweeper's."""
    listed = engine_leaks.containers(engine, label)
    return [f"container {each['Names']} {each['Status']}" for each in listed if each["State"] != _NEVER_STARTED]


def _never_started(engine: Engine, label: str) -> int:
    return sum(1 for each in engine_leaks.containers(engine, label) if each["State"] == _NEVER_STARTED)


async def _nothing_is_left(engine: Engine, stage: _Stage) -> int:
    """Nothing of the run is in the engine, on disk or among the processes.

    Returns how many volumes the engine held for containers that it had no more: those must be gone once it has started
    anew, and nothing else may be there before.
    """
    await _swept(engine, stage.label)
    held = await asyncio.to_thread(engine_leaks.held_for_nobody, engine, stage.label)
    remaining = set(await asyncio.to_thread(engine_leaks.left, engine, stage.label))
    if held:
        remaining -= {f"volume {name}" for name in held}
        await asyncio.to_thread(engine.restart)
        await _swept(engine, stage.label)
        remaining |= set(await asyncio.to_thread(engine_leaks.left, engine, stage.label))
    for words in sorted(remaining):
        stage.findings.add("left in the engine", words)
    directories = [*(stage.service.state_dir / "w").glob("*"), *(stage.directory / "tmp").glob(_REMAINS)]
    for path in directories:
        stage.findings.add("left on disk", str(path.relative_to(stage.directory)))
    for process in await asyncio.to_thread(belonging_to, stage.directory):
        stage.findings.add("left running", str(process))
    return len(held)


async def _swept(engine: Engine, label: str) -> None:
    """Sweeps until the engine has nothing of the run, or for long enough."""

    async def swept() -> bool:
        await engine_leaks.sweep(engine)
        return not await asyncio.to_thread(engine_leaks.left, engine, label)

    # An engine lists no longer what it is still removing, and lets nobody have the volumes of that.
    with contextlib.suppress(AssertionError):
        await eventually(swept, "the engine has nothing of the run")
