"""Images: there, or pulled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, Iterator

import aiodocker

from agentic_isolation.errors import ImageUnavailableError, InvalidArgumentError
from agentic_isolation.images import PulledImage, PullEvent
from agentic_isolation_service.providers.docker.engine import LOOK_TIMEOUT, NOT_CONNECTED, SERVER_FAILS
from agentic_isolation_service.providers.docker.pulls import PULL_TIMEOUT, Pulls

_MAX_NAME = 255
_MAX_REFERENCE = 1024
_log = logging.getLogger(__name__)

# The grammar of github.com/distribution/reference, which engines read names by: an optional host with a port, parts of
# a path, an optional tag, an optional digest. The short forms of image ids are names by that grammar too.
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_HOST = rf"(?:localhost|{_LABEL}(?:\.{_LABEL})+|{_LABEL}(?=:[0-9])|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_NAME = rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}"
_REFERENCE = re.compile(rf"(?P<name>{_NAME})(?::{_TAG})?(?:@{_DIGEST})?|sha256:[0-9a-f]{{64}}")


def check_image(image: str) -> None:
    """Refuses what cannot be the name of an image, before an engine is asked.

    Raises:
        InvalidArgumentError: It is malformed.
    """
    match = _REFERENCE.fullmatch(image) if len(image) <= _MAX_REFERENCE else None
    if match is None or len(match["name"] or "") > _MAX_NAME:
        raise InvalidArgumentError(
            f"{image[:_MAX_NAME]!r} is no image name; write it as in `python:3.12-slim`, "
            "`registry.example.org:5000/team/image:tag` or `image@sha256:…`, the path in lower case",
            field="image",
        )


class Images:
    """The images of one engine."""

    def __init__(self) -> None:
        self._pulls = Pulls()

    async def ensure(self, client: aiodocker.Docker, image: str) -> None:
        """Pulls an image if the engine does not have it; joins a pull of it that is under way.

        Raises:
            ImageUnavailableError: It cannot be had; the error has the registry's answer.
            DockerError: The engine itself fails.
        """
        if await _is_present(client, image):
            return
        with _explained(image):
            async with self._pulls.join(client, image) as pull:
                await pull.wait()
        await _check_pulled(client, image)

    async def id_of(self, client: aiodocker.Docker, image: str) -> str:
        """Returns the id of what a name stands for; empty where the engine has nothing of that name.

        Raises:
            DockerError: The engine itself fails.
        """
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                return str((await client.images.inspect(image))["Id"])
        except aiodocker.DockerError as error:
            if error.status >= SERVER_FAILS:
                raise
            return ""

    async def pull(self, client: aiodocker.Docker, image: str) -> AsyncGenerator[PullEvent, None]:
        """As `ensure`, and yields how it goes."""
        if await _is_present(client, image):
            yield PulledImage(image, was_present=True)
            return
        with _explained(image):
            async with self._pulls.join(client, image) as pull, contextlib.aclosing(pull.follow()) as events:
                async for event in events:
                    yield event
        await _check_pulled(client, image)
        yield PulledImage(image, was_present=False)


async def _check_pulled(client: aiodocker.Docker, image: str) -> None:
    if not await _is_present(client, image):
        raise ImageUnavailableError(
            f"the engine has pulled the image {image!r} and does not have it; load it into the engine", field="image"
        )


async def _is_present(client: aiodocker.Docker, image: str) -> bool:
    try:
        async with asyncio.timeout(LOOK_TIMEOUT):
            await client.images.inspect(image)
    except aiodocker.DockerError as error:
        if error.status >= SERVER_FAILS:
            raise
        if error.status != 404:
            raise ImageUnavailableError(f"{image!r} is no image: {error.message}", field="image") from error
        return False
    return True


@contextlib.contextmanager
def _explained(image: str) -> Iterator[None]:
    """Tells what a pull has failed for."""
    try:
        yield
    except aiodocker.DockerError as error:
        # Any other status, also 500, is what the registry has said to the engine.
        if error.status == NOT_CONNECTED:
            raise
        _log.info("pulling %s: %s", image, error.message)
        raise ImageUnavailableError(
            f"the engine has no image {image!r} and cannot pull it: {_without_body(error.message)}; "
            "check its name, or load it into the engine",
            field="image",
        ) from error
    except TimeoutError:
        raise ImageUnavailableError(
            f"pulling the image {image!r} took longer than {PULL_TIMEOUT:g} s; pull it beforehand", field="image"
        ) from None


def _without_body(message: str) -> str:
    """Returns what an engine says without what it quotes: whoever names an image would read pages of its network."""
    return message.partition(" response body:")[0]
