"""The guest's volume: filled once per engine and guest version, mounted read-only into every workspace.

It is filled by `put_archive` into a created, never-started container, so a remote engine needs nothing of this host. A
container's name is unique in an engine: it serves as the lock between services that fill the same volume. A marker that
comes last tells a complete volume from one whose filling was cut short.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiodocker

from agentic_isolation.errors import ProviderUnavailableError
from agentic_isolation_service.providers.docker.container import GUEST_DIRECTORY, GUEST_PATH, LABEL

_MARKER = "complete"
_GUEST_MODE = 0o555
"""gVisor cannot start what it cannot read; else 0o111 would keep others from tracing it before it asks for that."""
_STALE_AFTER = 60.0
"""Seconds after which a filling container has been left by a service that was killed."""
_POLL = 0.1
_FILL_TIMEOUT = 120.0


async def ensure_guest_volume(client: aiodocker.Docker, binary: Path, image: str) -> str:
    """Fills the guest's volume if it is not complete and returns its name.

    Args:
        client: The engine.
        binary: The guest for the engine's platform.
        image: Any image that is there, for the container that is never started.

    Raises:
        ProviderUnavailableError: Another service did not finish filling it in time.
    """
    archive = await asyncio.to_thread(lambda: _archive(binary.read_bytes()))
    name = f"{LABEL}-guest-{hashlib.sha256(archive).hexdigest()[:16]}"
    deadline = asyncio.get_running_loop().time() + _FILL_TIMEOUT
    while asyncio.get_running_loop().time() < deadline:
        container = await _lock(client, name, image)
        if container is None:
            await asyncio.sleep(_POLL)
            continue
        try:
            if not await _complete(container):
                await container.put_archive(GUEST_DIRECTORY, io.BytesIO(archive))  # type: ignore[no-untyped-call]
        finally:
            await container.delete(force=True)
        return name
    raise ProviderUnavailableError(f"the volume {name} is being filled by another service, which does not finish")


async def _lock(client: aiodocker.Docker, name: str, image: str) -> aiodocker.containers.DockerContainer | None:
    """Creates the filling container; None where another service has one, which is removed when it is stale."""
    config: Mapping[str, Any] = {
        "Image": image,
        "Entrypoint": [GUEST_PATH, "version"],
        "Labels": {LABEL: "guest-volume"},
        "HostConfig": {
            "NetworkMode": "none",
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": name,
                    "Target": GUEST_DIRECTORY,
                    "VolumeOptions": {"NoCopy": True, "Labels": {LABEL: "guest-volume"}},
                }
            ],
        },
    }
    lock_name = f"{name}-fill"
    try:
        return await client.containers.create(config, name=lock_name)
    except aiodocker.DockerError as error:
        if error.status != 409:
            raise
    try:
        other = await client.containers.get(lock_name)
        created = dt.datetime.fromisoformat(other["Created"][:19] + "+00:00")
        if (dt.datetime.now(dt.UTC) - created).total_seconds() > _STALE_AFTER:
            await other.delete(force=True)
    except aiodocker.DockerError as error:
        if error.status not in (404, 409):
            raise
    return None


async def _complete(container: aiodocker.containers.DockerContainer) -> bool:
    try:
        await container.get_archive(f"{GUEST_DIRECTORY}/{_MARKER}")
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise
        return False
    return True


def _archive(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data, mode in (("agentic-guest", content, _GUEST_MODE), (_MARKER, b"", 0o644)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
