"""Why a container does not start, where that is the place of its working directory."""

from __future__ import annotations

import contextlib
import secrets

import aiodocker

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.providers.docker.container import ContainerPlan, never_started_config
from agentic_isolation_service.providers.docker.creation import create_container

_ON_A_FILE = "not a directory"
_TOO_LONG = "file name too long"
"""What mount(2) and lstat(2) say of it."""


async def check_mounting(client: aiodocker.Docker, plan: ContainerPlan) -> None:
    """Has the engine mount the working directory of a container that did not start, and looks what it says.

    Runtimes say what was wrong in words of their own, of paths of the host, or not at all, and the container has gone.
    Another of its image never starts: the engine mounts its volumes for reading a file as well.

    Raises:
        InvalidArgumentError: The working directory would be on a file of the image, or is too long for the engine,
            which puts the path of the container's root before it.
    """
    working_dir = plan.spec.config.working_dir
    with contextlib.suppress(aiodocker.DockerError):
        container = await create_container(client, never_started_config(plan), f"agentic-look-{secrets.token_hex(8)}")
        try:
            await container.get_archive(working_dir)
        except aiodocker.DockerError as error:
            if _ON_A_FILE in error.message:
                raise InvalidArgumentError(
                    f"{working_dir!r} is or lies on a file of the image; use a directory of its own such as /workspace",
                    field="working_dir",
                ) from error
            if _TOO_LONG in error.message:
                raise InvalidArgumentError(
                    "the path, or a name in it, is too long for the engine; use a shorter one such as /workspace",
                    field="working_dir",
                ) from error
        finally:
            with contextlib.suppress(aiodocker.DockerError):
                await finish(container.delete(force=True, v=True))
