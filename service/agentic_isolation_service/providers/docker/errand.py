"""Errands: a container that runs the guest's program once, for what it does to the engine's host or finds out there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any, cast

import aiodocker

from agentic_isolation._cleanup import finish
from agentic_isolation_service.providers.docker.container import ERRAND, LABEL, ErrandPlan, errand_config

_TIMEOUT = 60.0
_STALE_AFTER = 300.0
"""Seconds after which the container of an errand was left by a service that was killed."""


class ErrandError(Exception):
    """An errand failed; the message is what it or the engine said."""


async def run_errand(client: aiodocker.Docker, plan: ErrandPlan) -> str:
    """Runs an errand and returns what it printed. Its container is removed in any case.

    Raises:
        ErrandError: It failed or did not end in time, or the engine refused its container.
        DockerError: The engine did not answer.
    """
    try:
        container = await client.containers.create(cast(Mapping[str, Any], errand_config(plan)))
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


async def remove_stale_errands(client: aiodocker.Docker) -> None:
    """Removes what services that were killed in the middle of an errand have left."""
    filters = f'{{"label": ["{LABEL}={ERRAND}"]}}'
    for container in await client.containers.list(all="1", filters=filters):
        if time.time() - container["Created"] > _STALE_AFTER:
            await _remove(container)


async def _remove(container: aiodocker.containers.DockerContainer) -> None:
    # 404 and 409: somebody else removes it.
    with contextlib.suppress(aiodocker.DockerError):
        await container.delete(force=True, v=True)


def _refusal(error: aiodocker.DockerError) -> Exception:
    # A start that the runtime refuses is a 500 of the engine's.
    return error if error.status >= 900 else ErrandError(error.message)
