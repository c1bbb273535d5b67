"""Images: there, or pulled."""

from __future__ import annotations

import asyncio

import aiodocker

from agentic_isolation.errors import ImageUnavailableError

PULL_TIMEOUT = 600.0
"""Seconds."""


async def ensure_image(client: aiodocker.Docker, image: str) -> None:
    """Pulls an image if the engine does not have it.

    Raises:
        ImageUnavailableError: It cannot be had; the error has the registry's answer.
    """
    try:
        await client.images.inspect(image)
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise ImageUnavailableError(f"{image!r} is no image: {error.message}", field="image") from error
    else:
        return
    try:
        async with asyncio.timeout(PULL_TIMEOUT):
            await client.images.pull(image)
        await client.images.inspect(image)
    except aiodocker.DockerError as error:
        raise ImageUnavailableError(
            f"the engine has no image {image!r} and cannot pull it: {error.message}; "
            "check its name, or load it into the engine",
            field="image",
        ) from error
    except TimeoutError:
        raise ImageUnavailableError(
            f"pulling the image {image!r} took longer than {PULL_TIMEOUT:g} s; pull it beforehand", field="image"
        ) from None
