"""Errands: a container that runs the guest's program once, for what it does to the engine's host or finds out there."""

from __future__ import annotations

import asyncio
import contextlib
import secrets

import aiodocker
from aiodocker.containers import DockerContainer

from agentic_isolation._cleanup import finish
from agentic_isolation_service.providers.docker.container import GUEST_PATH, ErrandPlan, errand_config
from agentic_isolation_service.providers.docker.creation import create_container
from agentic_isolation_service.providers.docker.engine import LOOK_TIMEOUT, NOT_CONNECTED

_TIMEOUT = 60.0


class ErrandError(Exception):
    """An errand failed; the message is what it or the engine said."""


async def run_errand(client: aiodocker.Docker, plan: ErrandPlan) -> str:
    """Runs an errand and returns what it printed. Its container is removed in any case.

    Raises:
        ErrandError: It failed or did not end in time, or the engine refused its container.
        DockerError: The engine did not answer, or the guest's volume is empty.
    """
    try:
        container = await create_container(client, errand_config(plan), f"agentic-errand-{secrets.token_hex(8)}")
    except aiodocker.DockerError as error:
        raise _refusal(error) from error
    try:
        async with asyncio.timeout(_TIMEOUT):
            await container.start()
            code = (await container.wait())["StatusCode"]
            output = "".join(await container.log(stdout=True, stderr=True))
    except aiodocker.DockerError as error:
        raise _refusal(error) from error
    except TimeoutError:
        raise ErrandError(f"it has not ended within {_TIMEOUT:g} s") from None
    finally:
        await finish(_remove(container))
    if code != 0:
        raise ErrandError(output.strip() or f"exit code {code}")
    return output


async def _remove(container: DockerContainer) -> None:
    # What is left nevertheless has ended or has never begun, and is swept one day.
    with contextlib.suppress(aiodocker.DockerError, TimeoutError):
        async with asyncio.timeout(LOOK_TIMEOUT):
            await container.delete(force=True, v=True)


def _refusal(error: aiodocker.DockerError) -> Exception:
    # A start that the runtime refuses is a 500 of the engine's.
    return error if error.status == NOT_CONNECTED or GUEST_PATH in error.message else ErrandError(error.message)
