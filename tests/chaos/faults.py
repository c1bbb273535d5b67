"""What is broken while clients work: drawn by chance, told as it happens, and journaled for the checker."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from tests.chaos.clients import Clients
from tests.chaos.engine import containers, kill_bridge, read_log, remove_container
from tests.chaos.findings import Findings
from tests.chaos.journal import Journal, operations
from tests.chaos.network import NetworkPath
from tests.chaos.service import Service
from tests.engine import Engine, EngineError
from tests.support.engine_proxy import EngineProxy

_MEAN_PAUSE = 2.0
"""Seconds between the beginnings of two faults."""
_READ_AFTER = 10.0
"""Seconds after a client's death when the logs of its workspaces are read: what it had asked for has arrived or never
will, and the leases still run."""
_LAST_KILL_BEFORE_END = 20.0
"""Seconds before the end without the death of a client, whose workspaces would have to be waited for."""
_HEARTBEAT = 0.25
_STALL = 2.0
"""Seconds by which a heartbeat is late when the machine stands still."""

Deed = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class _Kind:
    deed: Deed
    """Breaks something and mends it; returns words about it, None when there was nothing to break."""
    weight: int
    concerns: str
    """What it breaks, which one fault at a time does."""


class Faults:
    """Breaks things until the time is over, and mends them all.

    Args:
        engine: The run's own.
        label: Of all that the run has there, NAME=VALUE.
        proxy: Between service and engine.
        network: Between clients and service.
        service: The service.
        clients: The clients.
        journal: For the checker.
        findings: Where to tell what went wrong.
        chance: Where chance comes from.
    """

    def __init__(
        self,
        engine: Engine,
        label: str,
        *,
        proxy: EngineProxy,
        network: NetworkPath,
        service: Service,
        clients: Clients,
        journal: Journal,
        findings: Findings,
        chance: random.Random,
    ) -> None:
        self._engine = engine
        self._label = label
        self._proxy = proxy
        self._network = network
        self._service = service
        self._clients = clients
        self._journal = journal
        self._findings = findings
        self._chance = chance
        self._began = time.monotonic()
        self._end = self._began
        self._turns = {concern: asyncio.Lock() for concern in ("service", "engine", "clients", "network")}
        self._due: list[str] = []
        self._number = 0
        self.counts: Counter[str] = Counter()
        """Faults by kind, those that found something to break."""
        self._kinds = {
            "service kill": _Kind(service.kill, 5, "service"),
            "service drain": _Kind(service.drain, 3, "service"),
            "rolling restart": _Kind(service.roll, 3, "service"),
            "engine cut": _Kind(self._cut_engine, 4, "engine"),
            "engine restart": _Kind(self._restart_engine, 2, "engine"),
            "engine kill": _Kind(self._kill_engine, 2, "engine"),
            "bridge kill": _Kind(self._kill_bridge, 5, "engine"),
            "container removal": _Kind(self._remove_container, 2, "engine"),
            "client kill": _Kind(self._kill_client, 2, "clients"),
            "blackhole": _Kind(self._blackhole, 3, "network"),
            "reset": _Kind(self._reset, 4, "network"),
            "delay": _Kind(self._delay, 3, "network"),
        }

    async def inflict(self, seconds: float) -> None:
        """Breaks things for so long. Each kind comes once before chance has its way."""
        self._end = time.monotonic() + seconds
        self._due = list(self._kinds)
        self._chance.shuffle(self._due)
        async with asyncio.TaskGroup() as under_way:
            while True:
                pause = min(self._chance.expovariate(1 / _MEAN_PAUSE), 3 * _MEAN_PAUSE)
                if time.monotonic() + pause > self._end:
                    break
                await asyncio.sleep(pause)
                if (kind := self._draw()) is not None:
                    under_way.create_task(self._inflict(kind, under_way))

    async def watch_machine(self) -> None:
        """Notes when the machine had no time for us, which explains some of what clients meet. Never returns."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(_HEARTBEAT)
            if time.monotonic() - began > _HEARTBEAT + _STALL:
                self._journal.write("stall", began=began)

    async def read_logs(self, workspaces: Iterable[str]) -> int:
        """Reads the logs of those workspaces that live, past the service; returns how many that were."""
        wanted, read = set(workspaces), 0
        try:
            living = await asyncio.to_thread(containers, self._engine, self._label)
        except EngineError:
            return 0
        for workspace, container in living.items():
            if workspace not in wanted:
                continue
            began = time.monotonic()
            lines = await asyncio.to_thread(read_log, self._engine, container)
            if lines is not None:
                self._journal.write("reading", workspace=workspace, began=began, lines=lines)
                read += 1
        return read

    def _draw(self) -> str | None:
        """Returns a kind of what is not being broken already; None where chance wants one that is."""
        free = [kind for kind in self._kinds if not self._turns[self._kinds[kind].concerns].locked()]
        if self._end - time.monotonic() < _LAST_KILL_BEFORE_END and "client kill" in free:
            free.remove("client kill")
        for kind in self._due:
            if kind in free:
                self._due.remove(kind)
                return kind
        [kind] = self._chance.choices(list(self._kinds), [kind.weight for kind in self._kinds.values()])
        return kind if kind in free else None

    async def _inflict(self, name: str, under_way: asyncio.TaskGroup) -> None:
        kind = self._kinds[name]
        async with self._turns[kind.concerns]:
            self._number += 1
            number = self._number
            began = self._journal.write("begin", number=number, kind=name)
            try:
                words = await kind.deed()
            except EngineError as error:
                self._findings.add("engine", f"{name}: {error}")
                words = "failed"
            finally:
                ended = self._journal.write("end", number=number, kind=name)
        if words is None:
            self._due.append(name)
            return
        self.counts[name] += 1
        print(f"{began - self._began:7.1f} s  {name} ({ended - began:.1f} s){': ' * bool(words)}{words}", flush=True)
        if name == "client kill":
            under_way.create_task(self._read_logs_of_dead(words))

    async def _read_logs_of_dead(self, client: str) -> None:
        await asyncio.sleep(_READ_AFTER)
        async with self._turns["engine"]:
            await self.read_logs(self._workspaces_of(client))

    def _workspaces_of(self, client: str | None = None) -> list[str]:
        """Returns the workspaces that clients know, those of one or of all."""
        asked = operations(path for path in self._clients.journals if client is None or path.stem == client)
        return [each.answer["workspace"] for each in asked if each.kind == "create" and each.answer is not None]

    async def _cut_engine(self) -> str:
        await self._proxy.reset()
        return ""

    async def _restart_engine(self) -> str:
        await asyncio.to_thread(self._engine.stop)
        return await self._start_engine()

    async def _kill_engine(self) -> str:
        await asyncio.to_thread(self._engine.kill)
        return await self._start_engine()

    async def _start_engine(self) -> str:
        away = self._chance.choice([0.0, self._chance.uniform(0, 4)])
        await asyncio.sleep(away)
        await asyncio.to_thread(self._engine.start)
        return f"away for {away:.1f} s"

    async def _kill_bridge(self) -> str | None:
        return await asyncio.to_thread(kill_bridge, self._engine, self._chance)

    async def _remove_container(self) -> str | None:
        living = await asyncio.to_thread(containers, self._engine, self._label)
        known = sorted(set(living) & set(self._workspaces_of()))
        if not known:
            return None
        workspace = self._chance.choice(known)
        self._journal.write("removed", workspace=workspace)
        # Its client may have destroyed it meanwhile.
        with contextlib.suppress(EngineError):
            await asyncio.to_thread(remove_container, self._engine, living[workspace])
        return workspace

    async def _kill_client(self) -> str:
        return await self._clients.kill(self._chance.randrange(len(self._clients)))

    async def _blackhole(self) -> str:
        # Some are longer than clients and service believe in a connection that says nothing.
        seconds = self._chance.uniform(1, 8) if self._chance.random() < 0.8 else self._chance.uniform(12, 20)
        async with self._network.blackholed():
            await asyncio.sleep(min(seconds, max(0.0, self._end - time.monotonic())))
        return ""

    async def _reset(self) -> str:
        await self._network.reset()
        return ""

    async def _delay(self) -> str:
        most = self._chance.uniform(0.02, 0.3)
        async with self._network.delayed(most):
            await asyncio.sleep(min(self._chance.uniform(2, 8), max(0.0, self._end - time.monotonic())))
        return f"up to {most * 1000:.0f} ms"
