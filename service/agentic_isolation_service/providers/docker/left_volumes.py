"""Volumes that an engine holds for containers which it has no more.

An engine with live restore that starts takes hold of the volumes of all containers that ran when it began, also of
those that have ended and were removed before it has come so far (Docker 26.1). Nobody can remove such a volume before
the engine's next start, after which it is swept like any other. Until then it would keep what was in it, in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

import aiodocker

from agentic_isolation._cleanup import finish
from agentic_isolation_service.providers.docker.empty_image import empty_image

_PLACE = "/volume"


class LeftVolumes:
    """Empties them: a volume that is mounted once more is unmounted with that, and what was in it is gone.

    Args:
        labels: What volumes and containers must carry to be looked at.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = dict(labels)
        self._seen: frozenset[str] = frozenset()
        self._emptied: frozenset[str] = frozenset()

    async def empty(self, client: aiodocker.Docker, patience: float) -> None:
        """Empties those that were there at the last look already: others may be of a container that is being removed.

        Args:
            client: The engine's.
            patience: Seconds after which the rest is left to the next look.

        Raises:
            DockerError: The engine does not tell what there is.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        left = await self._left(client)
        due = (left & self._seen) - self._emptied
        self._seen, self._emptied = left, self._emptied & left
        for name in due:
            with contextlib.suppress(aiodocker.DockerError):
                await self._mount_once(client, name)
                self._emptied |= {name}
            if loop.time() >= until:
                return

    async def _left(self, client: aiodocker.Docker) -> frozenset[str]:
        labels = [f"{name}={value}" for name, value in self._labels.items()]
        held = {"label": labels, "dangling": ["false"]}
        volumes = (await client.volumes.list(filters=held))["Volumes"] or []  # type: ignore[no-untyped-call]
        if not volumes:
            return frozenset()
        containers = await client.containers.list(all=True, filters=json.dumps({"label": labels}))
        mounted = {mount.get("Name") for container in containers for mount in container["Mounts"]}
        return frozenset(volume["Name"] for volume in volumes if volume["Name"] not in mounted)

    async def _mount_once(self, client: aiodocker.Docker, name: str) -> None:
        """The engine mounts the volumes of a container that never starts, too, to look at a path in it."""
        mount = {"Type": "volume", "Source": name, "Target": _PLACE, "VolumeOptions": {"NoCopy": True}}
        config: dict[str, Any] = {
            "Image": await empty_image(client),
            "Entrypoint": [_PLACE],
            "Labels": self._labels,
            "HostConfig": {"Mounts": [mount], "NetworkMode": "none"},
        }
        # One that is left is swept.
        container = await client.containers.create(config, name=f"agentic-look-{secrets.token_hex(8)}")
        try:
            async with client._query(f"containers/{container.id}/archive", method="HEAD", params={"path": _PLACE}):
                pass
        finally:
            with contextlib.suppress(aiodocker.DockerError):
                await finish(container.delete(force=True))
