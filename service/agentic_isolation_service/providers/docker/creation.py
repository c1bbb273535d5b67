"""Making containers so that none is left when the one who makes them is cancelled, or was killed."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

import aiodocker
from aiodocker.containers import DockerContainer

from agentic_isolation._cleanup import finish
from agentic_isolation_service.providers.docker.engine import LOOK_TIMEOUT
from agentic_isolation_service.providers.docker.left_volumes import LeftVolumes

STALE_AFTER = 120
"""Seconds after which a container that was never started is not going to be: twice as long as a call may take."""
SWEEP_INTERVAL = 60.0
"""Seconds between two looks for such containers."""
SWEEP_PATIENCE = 2.0
"""Seconds that one look may spend on removing: somebody may wait for it, and a thousand take an engine a minute."""
_log = logging.getLogger(__name__)


async def create_container(client: aiodocker.Docker, config: Mapping[str, object], name: str) -> DockerContainer:
    """Creates a container. Cancelled, it waits for the engine's answer and removes what has come of it.

    Raises:
        DockerError: The engine refuses or fails.
    """
    creating = asyncio.ensure_future(client.containers.create(cast(Mapping[str, Any], config), name=name))
    try:
        return await asyncio.shield(creating)
    except asyncio.CancelledError:
        await finish(_take_back(creating))
        raise


async def _take_back(creating: asyncio.Future[DockerContainer]) -> None:
    # The engine makes the container whether anybody waits or not, and only one that is there can be removed.
    await asyncio.wait([creating], timeout=LOOK_TIMEOUT)
    if creating.cancel():
        await asyncio.wait([creating])
    elif creating.exception() is None:
        with contextlib.suppress(aiodocker.DockerError, TimeoutError):
            async with asyncio.timeout(LOOK_TIMEOUT):
                await creating.result().delete(force=True, v=True)


class Sweeper:
    """Removes what would stay for ever because a service, or the engine, was killed at a bad moment.

    Containers that were created and never started, which have no guest that would end them; and volumes of containers
    that are gone: an engine that ends forgets those of the containers that it had to remove. Volumes that it lets
    nobody remove are emptied (left_volumes.py).

    Args:
        labels: What containers and volumes must carry to be looked at.
        stale_after: Seconds, by the engine's clock, that they must be old.
        patience: Seconds, for each of the three kinds, after which the rest is left to the next look.
        interval: Seconds between two looks.
    """

    def __init__(
        self,
        labels: Mapping[str, str],
        *,
        stale_after: float = STALE_AFTER,
        patience: float = SWEEP_PATIENCE,
        interval: float = SWEEP_INTERVAL,
    ) -> None:
        self._labels = [f"{name}={value}" for name, value in labels.items()]
        self._stale_after = stale_after
        self._patience = patience
        self._interval = interval
        self._left = LeftVolumes(labels)
        self._next = 0.0

    async def sweep(self, client: aiodocker.Docker) -> None:
        """Sweeps, unless that was done a short while ago. That it fails is no reason for anything else to fail."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._next:
            return
        self._next = loop.time() + self._interval
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                await self._sweep(client)
                await self._left.empty(client, self._patience)
        except (aiodocker.DockerError, TimeoutError) as error:
            _log.debug("could not sweep: %s", error)

    async def _sweep(self, client: aiodocker.Docker) -> None:
        status = json.dumps({"label": self._labels, "status": ["created", "exited", "dead"]})
        containers = await client.containers.list(all=True, filters=status)
        dangling = {"label": self._labels, "dangling": ["true"]}
        volumes = (await client.volumes.list(filters=dangling))["Volumes"] or []  # type: ignore[no-untyped-call]
        if not containers and not volumes:
            return
        horizon = engine_seconds((await client.system.info())["SystemTime"]) - self._stale_after
        # Without force: what has been started or taken into use after all is refused.
        stale = [container for container in containers if container["Created"] < horizon]
        await self._remove(functools.partial(container.delete, v=True) for container in stale)
        names = [volume["Name"] for volume in volumes if engine_seconds(volume["CreatedAt"]) < horizon]
        await self._remove(functools.partial(client._query_json, f"volumes/{name}", method="DELETE") for name in names)

    async def _remove(self, removals: Iterable[Callable[[], Awaitable[object]]]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        for remove in removals:
            with contextlib.suppress(aiodocker.DockerError):
                await remove()
            if loop.time() >= until:
                return


def engine_seconds(time: str) -> float:
    """Returns the seconds of an engine's time, RFC 3339 with up to nanoseconds."""
    whole, zone = time[:19], re.search(r"[+-]\d\d:\d\d$", time)
    return dt.datetime.fromisoformat(whole + (zone[0] if zone else "+00:00")).timestamp()
