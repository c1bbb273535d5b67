"""Workspaces that are a directory of this host, with a guest beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncGenerator, Hashable, Iterable
from dataclasses import replace
from pathlib import Path

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import (
    InvalidArgumentError,
    IsolationUnavailableError,
    PreconditionError,
    ProviderUnavailableError,
    UnavailableError,
)
from agentic_isolation.images import PullEvent
from agentic_isolation.models import Isolation, NetworkMode, ProviderInfo, WorkspaceConfig
from agentic_isolation_service.core.ports import ByteStream, Place, PlaceSpec
from agentic_isolation_service.guest.binary import guest_binary
from agentic_isolation_service.guest.settings import times
from agentic_isolation_service.guest.stream import SocketStream
from agentic_isolation_service.providers.local.peer import has_listener, tells_nothing
from agentic_isolation_service.providers.local.process import GuestProcess
from agentic_isolation_service.trees import remove_tree

_NETWORK = NetworkMode.OUTBOUND
"""What commands have of the network: all that this host has."""
_FALLBACK_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_SOCKET_PATH = 107
"""Bytes (unix(7))."""

_log = logging.getLogger(__name__)


class LocalProvider:
    """Makes places under a directory.

    Args:
        directory: Holds the workspaces; must be there, and be ours alone.
        sweep: Let the last guest remove `directory` when its lease ends and nobody holds the directory's lock.
    """

    name = "local"

    def __init__(self, directory: Path, *, sweep: bool = False) -> None:
        self._directory = directory
        self._sweep = sweep
        self._making: set[str] = set()
        self._guests: dict[str, GuestProcess] = {}
        """Those that this process has started."""

    def check(self, config: WorkspaceConfig) -> None:
        """Refuses every protection and limit: a plain process of this host has none to give."""
        if config.image:
            raise InvalidArgumentError("the local provider has no images; leave it out", field="image")
        if config.security is not None:
            raise IsolationUnavailableError(
                "the local provider runs plain processes of this host and cannot hold a SecurityConfig; "
                "leave security out, or use provider='docker'",
                field="security",
            )
        if config.mounts:
            raise IsolationUnavailableError(
                "the local provider mounts nothing, and its commands have this host's files where they are; "
                "leave mounts out, or use provider='docker'",
                field="mounts",
            )
        limits = config.limits
        asked = limits and (limits.cpu, limits.memory, limits.disk, limits.open_files, limits.network is False or None)
        if asked and any(value is not None for value in asked):
            raise IsolationUnavailableError(
                "the local provider cannot limit what a workspace uses; leave limits out, or use provider='docker'",
                field="limits",
            )

    def with_defaults(self, config: WorkspaceConfig) -> WorkspaceConfig:
        """Returns the configuration: nothing is held, and there are no images."""
        return config

    def shape(self, config: WorkspaceConfig) -> Hashable:
        """Returns the working directory: there is nothing else to choose."""
        return config.working_dir

    async def image_id(self, config: WorkspaceConfig) -> str:
        """Returns nothing: there are no images."""
        return ""

    async def create(self, spec: PlaceSpec) -> Place:
        """Makes the directory and starts the guest in it.

        Raises:
            PreconditionError: Its path is too long for a unix socket in it.
            ProviderUnavailableError: There is no room, descriptor or process for it.
        """
        home = self._home(spec.workspace_id)
        if (length := len(os.fsencode(self._socket(spec.workspace_id)))) > _MAX_SOCKET_PATH:
            raise PreconditionError(
                f"the guest's socket below {self._directory} would have a path of {length} bytes, and "
                f"{_MAX_SOCKET_PATH} is the most; give the service a shorter --state-dir, or TMPDIR where it has none"
            )
        self._making.add(spec.workspace_id)
        try:
            self._guests[spec.workspace_id] = await self._start(spec, home)
        except BaseException:
            await finish(asyncio.to_thread(_remove_remains, [home]))
            raise
        finally:
            self._making.discard(spec.workspace_id)
        return Place(spec.workspace_id, runtime=self.name, host_path=str(home / "root"))

    def pull(self, image: str) -> AsyncGenerator[PullEvent, None]:
        """Refuses: plain processes run on what this host has.

        Raises:
            InvalidArgumentError: Always.
        """
        raise InvalidArgumentError("the local provider has no images; use 'docker'", field="provider")

    async def list(self) -> frozenset[str]:
        """Returns the workspaces on whose socket a guest listens, and removes the directories of all others.

        Those that are being made, or have a guest that this process has started, are left to whoever does that.

        Raises:
            ProviderUnavailableError: They cannot be looked for.
        """
        try:
            names = await asyncio.to_thread(_directories, self._directory / "w")
        except OSError as error:
            raise ProviderUnavailableError(f"the local workspaces cannot be looked for: {error}") from error
        living = {name for name in names if has_listener(self._socket(name))}
        remains = set(names) - living - self._making - self._guests.keys()
        await finish(asyncio.to_thread(_remove_remains, [self._home(name) for name in remains]))
        return frozenset(living)

    def adopt(self, place: Place) -> None:
        """Does nothing: the socket leads to the guest."""

    async def connect(self, place: Place) -> ByteStream:
        """Connects to the guest's socket.

        Raises:
            UnavailableError: It cannot be tried for now.
            OSError: The guest is gone.
        """
        try:
            return await SocketStream.connect(self._socket(place.workspace_id))
        except OSError as error:
            if not tells_nothing(error):
                raise
            raise UnavailableError(f"the guest cannot be connected to for now: {error}") from error

    async def exhausted(self, place: Place, *, wait: bool) -> bool:
        """Returns False: no memory is limited here."""
        return False

    async def destroy(self, place: Place, *, ending: bool = False) -> None:
        """Ends the guest, which kills everything and removes its directory; removes what a killed guest left.

        Raises:
            UnavailableError: The guest cannot be found for now, or does not end, or something of the directory is left.
        """
        guest = self._guests.get(place.workspace_id)
        if guest is not None:
            await guest.end()
        elif (guest := GuestProcess.behind(self._socket(place.workspace_id))) is not None:
            with contextlib.closing(guest):
                await guest.end()
        await asyncio.to_thread(_remove_tree, self._home(place.workspace_id))
        self._guests.pop(place.workspace_id, None)

    async def isolation(
        self, place: Place, config: WorkspaceConfig, measured: Isolation, *, in_gvisor: bool
    ) -> Isolation:
        """Returns what the guest measured, and that nothing keeps commands from this host's network."""
        return replace(measured, network=_NETWORK)

    async def describe(self) -> ProviderInfo:
        """Returns that commands are plain processes of this host, or why there can be none."""
        isolation = Isolation(runtime=self.name, no_new_privileges=True, network=_NETWORK)
        try:
            guest_binary()
        except ProviderUnavailableError as error:
            return ProviderInfo(self.name, available=False, unavailable_reason=str(error), isolation=isolation)
        return ProviderInfo(self.name, available=True, isolation=isolation)

    async def aclose(self) -> None:
        """Lets go of the guests, which go on until their leases end or another process of the service ends them."""
        for guest in self._guests.values():
            guest.close()
        self._guests.clear()

    def _home(self, workspace_id: str) -> Path:
        return self._directory / "w" / workspace_id

    def _socket(self, workspace_id: str) -> Path:
        return self._home(workspace_id) / "guest.sock"

    async def _start(self, spec: PlaceSpec, home: Path) -> GuestProcess:
        root, scratch = home / "root", home / "tmp"
        try:
            await finish(asyncio.to_thread(_make_directories, root, scratch))
        except OSError as error:
            raise ProviderUnavailableError(f"the workspace's directory cannot be made: {error}") from error
        settings = {
            "workspace_id": spec.workspace_id,
            "key": spec.key.hex(),
            "socket": str(self._socket(spec.workspace_id)),
            "root": str(root),
            "mount": spec.config.working_dir,
            "working_dir": spec.config.working_dir,
            **times(spec.config, request_window=spec.request_window),
            "cleanup": str(home),
        }
        if self._sweep:
            settings["sweep"] = str(self._directory)
        environment = {
            "AGENTIC_GUEST_CONFIG": json.dumps(settings),
            "PATH": os.environ.get("PATH", _FALLBACK_PATH),
            "HOME": str(root),
            "TMPDIR": str(scratch),
            "LANG": "C.UTF-8",
        }
        return await GuestProcess.start(guest_binary(), environment, log=home / "guest.log")


def _make_directories(*directories: Path) -> None:
    for directory in directories:
        directory.mkdir(parents=True, mode=0o700)


def _directories(parent: Path) -> list[str]:
    try:
        with os.scandir(parent) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _remove_remains(directories: Iterable[Path]) -> None:
    for directory in directories:
        try:
            _remove_tree(directory)
        except UnavailableError as error:
            _log.warning("a dead workspace is left: %s", error, extra={"workspace_id": directory.name})


def _remove_tree(directory: Path) -> None:
    """Removes a workspace's directory.

    Raises:
        UnavailableError: Something of it is left.
    """
    failure = remove_tree(directory)
    if failure is not None and tells_nothing(failure):
        raise UnavailableError(f"{directory} cannot be removed for now: {failure.strerror}")
    if directory.exists():
        raise UnavailableError(f"{directory} cannot be removed completely; see what is mounted or immutable there")
