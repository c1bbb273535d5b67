"""The direct way to guests: their own sockets, where engine and service share a host.

It saves the bridge: a process in each container, two connections to the engine, and two more copies of every byte. It
is tried first for containers that run on the host's kernel; whatever it fails for, the bridge is what is left.
"""

from __future__ import annotations

import asyncio
import logging

import aiodocker
from aiodocker.containers import DockerContainer

from agentic_isolation_service.guest.stream import SocketStream
from agentic_isolation_service.providers.docker.engine import LOOK_TIMEOUT, SERVER_FAILS
from agentic_isolation_service.providers.docker.namespace import (
    ContainerInit,
    NoEntryError,
    StrangerError,
    connect_to_guest,
)

_RUNTIMES = frozenset({"runc", "crun", "io.containerd.runc.v2"})
"""Under others a container's sockets are none of this host's kernel."""
_RETRY_AFTER = 60.0
"""Seconds until an engine is tried again whose containers could not be entered."""
_log = logging.getLogger(__name__)


class GoneError(OSError):
    """The container has ended, and with it the workspace."""


class DirectWay:
    """Connects to the guests of one engine's containers, and remembers which processes they are.

    Args:
        host: The engine, for the log.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._local = host.startswith("unix://")
        self._reached: dict[str, ContainerInit] = {}
        """The guests that were connected to, by the containers' names."""
        self._refused_until = 0.0
        self._works: bool | None = None

    async def open(self, container: DockerContainer, name: str, runtime: str) -> SocketStream | None:
        """Returns a connection to a container's guest; None where there is none to be had in this way.

        Asks the engine only about containers whose guests were never connected to.

        Args:
            container: The container.
            name: Its name.
            runtime: What runs it.

        Raises:
            GoneError: Its guest was connected to before, and has ended.
            DockerError: The engine fails.
            TimeoutError: The engine does not answer within LOOK_TIMEOUT.
        """
        if not self._local or runtime not in _RUNTIMES or asyncio.get_running_loop().time() < self._refused_until:
            return None
        reached = self._reached.get(name)
        init = reached or await _look(container)
        if init is None:
            return None
        try:
            stream = await connect_to_guest(init)
        except (ProcessLookupError, StrangerError) as error:
            if reached is not None:
                # It may take the engine a moment to notice.
                raise GoneError("its container has ended") from None
            if isinstance(error, StrangerError):
                self._refuse(error)
        except NoEntryError as error:
            self._refuse(error)
        except OSError as error:
            _log.info("a guest cannot be connected to for now: %s", error, extra={"container": name})
        else:
            self._accept(name, init)
            return stream
        return None

    def discard(self, name: str) -> None:
        """Forgets a container."""
        self._reached.pop(name, None)

    def _accept(self, name: str, init: ContainerInit) -> None:
        self._reached[name] = init
        if not self._works:
            _log.info("guests of the engine at %s are connected to directly", self._host)
        self._works = True

    def _refuse(self, error: OSError) -> None:
        self._refused_until = asyncio.get_running_loop().time() + _RETRY_AFTER
        if self._works is not False:
            _log.info("guests of the engine at %s are reached through bridges: %s", self._host, error)
        self._works = False


async def _look(container: DockerContainer) -> ContainerInit | None:
    """Asks the engine for a container's first process; None where it has none."""
    try:
        async with asyncio.timeout(LOOK_TIMEOUT):
            record = await container.show()
    except aiodocker.DockerError as error:
        if error.status >= SERVER_FAILS:
            raise
        return None
    pid = record["State"]["Pid"]
    return ContainerInit(record["Id"], pid) if pid > 0 else None
