"""The guest's volume: filled once per engine and guest version, mounted read-only into every workspace.

It is filled by `put_archive` into a created, never-started container, so a remote engine needs nothing of this host. It
is one of the empty image: all that is looked at in it is the volume's. A container's name is unique in an engine: it
serves as the lock between services that fill the same volume. A marker that comes last tells a complete volume from one
whose filling was cut short; an empty volume beside it says the same at the price of a look.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import tarfile
from pathlib import Path

import aiodocker
from aiodocker.containers import DockerContainer

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import ProviderUnavailableError
from agentic_isolation_service.providers.docker.container import GUEST_DIRECTORY, GUEST_PATH, LABEL
from agentic_isolation_service.providers.docker.creation import create_container, engine_seconds
from agentic_isolation_service.providers.docker.empty_image import empty_image
from agentic_isolation_service.providers.docker.engine import CALL_TIMEOUT

_MARKER = "complete"
_GUEST_MODE = 0o555
"""gVisor cannot start what it cannot read; else 0o111 would keep others from tracing it before it asks for that."""
STALE_AFTER = 60.0
"""Seconds after which a filling container has been left by a service that was killed."""
_POLL = 0.1
_FILL_TIMEOUT = 120.0
_LABELS = {LABEL: "guest-volume"}


async def ensure_guest_volume(
    client: aiodocker.Docker, binary: Path, *, doubted: bool = False, stale_after: float = STALE_AFTER
) -> str:
    """Fills the guest's volume if it is not complete and returns its name.

    Args:
        client: The engine.
        binary: The guest for the engine's platform.
        doubted: No guest could be started from it, whatever its note and its marker say.
        stale_after: Seconds after which another service's filling has been given up.

    Raises:
        ProviderUnavailableError: Another service did not finish filling it in time.
    """
    archive = await asyncio.to_thread(lambda: _archive(binary.read_bytes()))
    name = f"{LABEL}-guest-{hashlib.sha256(archive).hexdigest()[:16]}"
    if not doubted and await _known_complete(client, name):
        return name
    image = await empty_image(client)
    deadline = asyncio.get_running_loop().time() + _FILL_TIMEOUT
    while asyncio.get_running_loop().time() < deadline:
        container = await _lock(client, name, image, stale_after)
        if container is None:
            await asyncio.sleep(_POLL)
            continue
        try:
            await _fill(client, container, name, archive, anew=doubted)
        except aiodocker.DockerError as error:
            if error.status not in (404, 409):
                raise
            continue  # another service has taken the filling over, as it took too long
        finally:
            await finish(_unlock(container))
        return name
    raise ProviderUnavailableError(f"the volume {name} is being filled by another service, which does not finish")


async def _known_complete(client: aiodocker.Docker, name: str) -> bool:
    """Whether the volume's completeness was noted, and for this volume, not for one of its name that was removed."""
    try:
        volume, note = [await client._query_json(f"volumes/{which}") for which in (name, _note(name))]
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise
        return False
    return engine_seconds(volume["CreatedAt"]) <= engine_seconds(note["CreatedAt"])


async def _fill(client: aiodocker.Docker, container: DockerContainer, name: str, archive: bytes, *, anew: bool) -> None:
    if anew or not await _complete(container):
        async with asyncio.timeout(CALL_TIMEOUT):
            await container.put_archive(GUEST_DIRECTORY, io.BytesIO(archive))  # type: ignore[no-untyped-call]
    with contextlib.suppress(aiodocker.DockerError):
        await client._query_json(f"volumes/{_note(name)}", method="DELETE")
    await client.volumes.create({"Name": _note(name), "Labels": _LABELS})  # type: ignore[no-untyped-call]


def _note(name: str) -> str:
    return f"{name}-{_MARKER}"


async def _lock(client: aiodocker.Docker, name: str, image: str, stale_after: float) -> DockerContainer | None:
    """Creates the filling container; None where another service has one, which is removed when it is stale."""
    config: dict[str, object] = {
        "Image": image,
        "Entrypoint": [GUEST_PATH, "version"],
        "Labels": _LABELS,
        "HostConfig": {
            "NetworkMode": "none",
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": name,
                    "Target": GUEST_DIRECTORY,
                    "VolumeOptions": {"NoCopy": True, "Labels": _LABELS},
                }
            ],
        },
    }
    lock_name = f"{name}-fill"
    try:
        return await create_container(client, config, lock_name)
    except aiodocker.DockerError as error:
        if error.status != 409:
            raise
    try:
        other = await client.containers.get(lock_name)
        if engine_seconds((await client.system.info())["SystemTime"]) - engine_seconds(other["Created"]) > stale_after:
            await other.delete(force=True, v=True)
    except aiodocker.DockerError as error:
        if error.status not in (404, 409):
            raise
    return None


async def _unlock(container: DockerContainer) -> None:
    with contextlib.suppress(aiodocker.DockerError, TimeoutError):
        async with asyncio.timeout(CALL_TIMEOUT):
            await container.delete(force=True, v=True)


async def _complete(container: DockerContainer) -> bool:
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
