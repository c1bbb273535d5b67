"""An image with nothing in it, for containers in which the guest runs on the service's own account, or is put.

In an image of somebody else's the guest's program could be that image's: engines follow its symbolic links to where the
guest's volume is mounted, and mount the volumes that it declares, deeper ones on top.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import aiodocker

from agentic_isolation_service.providers.docker.container import LABEL
from agentic_isolation_service.providers.docker.engine import CALL_TIMEOUT

EMPTY_IMAGE = f"{LABEL}/empty:1"
"""Its name, by which it is found again. What has that name is looked at: anybody may give an image a name."""
_ARCHIVE = bytes(1024)
"""A tar archive without entries."""
_LAYERS = [f"sha256:{hashlib.sha256(_ARCHIVE).hexdigest()}"]
_SETTINGS = ("Entrypoint", "Cmd", "Env", "Volumes", "User", "WorkingDir", "Healthcheck", "OnBuild", "ExposedPorts")


async def empty_image(client: aiodocker.Docker) -> str:
    """Returns the id of the engine's empty image, which is imported where it has none.

    Raises:
        DockerError: The engine fails, or refuses it.
    """
    async with asyncio.timeout(CALL_TIMEOUT):
        try:
            image = await client.images.inspect(EMPTY_IMAGE)
        except aiodocker.DockerError as error:
            if error.status != 404:
                raise
        else:
            if _is_empty(image):
                return str(image["Id"])
        return await _imported(client)


def _is_empty(image: Mapping[str, Any]) -> bool:
    settings = image.get("Config") or {}
    return image["RootFS"].get("Layers") == _LAYERS and not any(settings.get(name) for name in _SETTINGS)


async def _imported(client: aiodocker.Docker) -> str:
    """As `docker import - NAME` (Docker Engine API 1.41, `POST /images/create`)."""
    name, _, tag = EMPTY_IMAGE.rpartition(":")
    asked = {"fromSrc": "-", "repo": name, "tag": tag}
    headers = {"Content-Type": "application/x-tar"}
    async with client._query("images/create", "POST", params=asked, data=_ARCHIVE, headers=headers) as answer:
        told = json.loads((await answer.text()).splitlines()[-1])
    if "error" in told:
        raise aiodocker.DockerError(answer.status, f"it imports no empty image: {told['error']}")
    return str(told["status"])
