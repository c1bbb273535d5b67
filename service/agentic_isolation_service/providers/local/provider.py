"""Workspaces that are a directory of this host, with a guest beside it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import (
    InvalidArgumentError,
    IsolationError,
    IsolationUnavailableError,
    ProviderUnavailableError,
)
from agentic_isolation.models import Isolation, NetworkMode, ProviderInfo, WorkspaceConfig
from agentic_isolation_service.core.ports import ByteStream, Place, PlaceSpec
from agentic_isolation_service.guest.binary import guest_binary
from agentic_isolation_service.providers.local.process import GuestProcess, SocketStream

_FALLBACK_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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
        self._guests: dict[str, GuestProcess] = {}

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
        limits = config.limits
        asked = limits and (limits.cpu, limits.memory, limits.disk, limits.open_files, limits.network is False or None)
        if asked and any(value is not None for value in asked):
            raise IsolationUnavailableError(
                "the local provider cannot limit what a workspace uses; leave limits out, or use provider='docker'",
                field="limits",
            )

    async def create(self, spec: PlaceSpec) -> Place:
        """Makes the directory and starts the guest in it."""
        home = self._home(spec.workspace_id)
        try:
            guest = await self._start(spec, home)
        except BaseException:
            await finish(asyncio.to_thread(_remove_tree, home))
            raise
        self._guests[spec.workspace_id] = guest
        return Place(spec.workspace_id, runtime=self.name, host_path=str(home / "root"))

    async def connect(self, place: Place) -> ByteStream:
        """Connects to the guest's socket."""
        return await SocketStream.connect(self._home(place.workspace_id) / "guest.sock")

    async def destroy(self, place: Place) -> None:
        """Ends the guest, which kills everything and removes its directory; removes what a killed guest left."""
        guest = self._guests.get(place.workspace_id)
        if guest is not None:
            await guest.end()
        await asyncio.to_thread(_remove_tree, self._home(place.workspace_id))
        self._guests.pop(place.workspace_id, None)

    async def isolation(
        self, place: Place, config: WorkspaceConfig, measured: Isolation, *, in_gvisor: bool
    ) -> Isolation:
        """Returns what the guest measured: there is no engine that knows more."""
        return measured

    async def describe(self) -> ProviderInfo:
        """Returns that commands are plain processes of this host, or why there can be none."""
        isolation = Isolation(runtime=self.name, no_new_privileges=True, network=NetworkMode.OUTBOUND)
        try:
            guest_binary()
        except ProviderUnavailableError as error:
            return ProviderInfo(self.name, available=False, unavailable_reason=str(error), isolation=isolation)
        return ProviderInfo(self.name, available=True, isolation=isolation)

    async def aclose(self) -> None:
        """Forgets the guests, which go on until their leases end."""
        self._guests.clear()

    def _home(self, workspace_id: str) -> Path:
        return self._directory / "w" / workspace_id

    async def _start(self, spec: PlaceSpec, home: Path) -> GuestProcess:
        root, scratch = home / "root", home / "tmp"
        await finish(asyncio.to_thread(_make_directories, root, scratch))
        settings = {
            "workspace_id": spec.workspace_id,
            "key": spec.key.hex(),
            "socket": str(home / "guest.sock"),
            "root": str(root),
            "mount": spec.config.working_dir,
            "working_dir": spec.config.working_dir,
            "lease_ms": round(spec.config.lease * 1000),
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


def _remove_tree(directory: Path) -> None:
    """Removes a directory, also where a workload has taken its own permissions away.

    Raises:
        IsolationError: Something of it is left.
    """

    def unlock_and_retry(function: object, path: str, error: object) -> None:
        try:
            for locked in (os.path.dirname(path), path):
                if not os.path.islink(locked):
                    os.chmod(locked, 0o700)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
        except OSError:
            pass  # What is left is reported below.

    # `onerror` became `onexc` in Python 3.12.
    handler = {"onexc": unlock_and_retry} if sys.version_info >= (3, 12) else {"onerror": unlock_and_retry}
    shutil.rmtree(directory, **handler)  # type: ignore[arg-type]
    if directory.exists():
        raise IsolationError(f"{directory} could not be removed completely; remove it by hand")
