"""Why a container is not created or does not start, where that is what was asked for."""

from __future__ import annotations

import contextlib
import secrets

import aiodocker

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import InvalidArgumentError, IsolationUnavailableError
from agentic_isolation_service.providers.docker.container import (
    DEFAULT_OPEN_FILES,
    ContainerPlan,
    container_config,
    container_name,
    never_started_config,
)
from agentic_isolation_service.providers.docker.creation import create_container

_ON_A_FILE = "not a directory"
_TOO_LONG = "file name too long"
"""What mount(2) and lstat(2) say of it."""
_OPEN_FILES = ("rlimit type 7", "RLIMIT_NOFILE")
"""How runc and crun name what setrlimit(2) has refused them; 7 is RLIMIT_NOFILE's number."""
_CPUS = "Range of CPUs"
"""What Docker begins with where its host has fewer."""


async def start_planned(client: aiodocker.Docker, plan: ContainerPlan) -> None:
    """Creates and starts the container of a workspace. What has come of it when it fails is for the caller to remove.

    Raises:
        IsolationUnavailableError: The engine's host has not what was asked for.
        InvalidArgumentError: There can be no such working directory.
        DockerError: The engine refuses or fails for another reason.
    """
    try:
        container = await create_container(client, container_config(plan), container_name(plan.spec.workspace_id))
    except aiodocker.DockerError as error:
        _check_cpus(error)
        raise
    try:
        await container.start()
    except aiodocker.DockerError as error:
        _check_open_files(error, plan)
        await _check_mounting(client, plan)
        raise


def _check_cpus(error: aiodocker.DockerError) -> None:
    if _CPUS in error.message:
        raise IsolationUnavailableError(
            f"the engine refused the container: {error.message}", field="limits.cpu_millis"
        ) from error


def _check_open_files(error: aiodocker.DockerError, plan: ContainerPlan) -> None:
    """Looks whether it was the limit of open files that a container did not start with.

    Raises:
        IsolationUnavailableError: The engine's host lets no process have so many.
    """
    if any(words in error.message for words in _OPEN_FILES):
        limits = plan.spec.config.limits
        asked = None if limits is None else limits.open_files
        raise IsolationUnavailableError(
            f"{DEFAULT_OPEN_FILES if asked is None else asked} are more than the engine's host lets a process have; "
            "ask for fewer, or raise the engine's own limit (LimitNOFILE, fs.nr_open)",
            field="limits.open_files_count",
        ) from error


async def _check_mounting(client: aiodocker.Docker, plan: ContainerPlan) -> None:
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
