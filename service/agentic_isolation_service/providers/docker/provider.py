"""Workspaces that are containers of a Docker Engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import aiodocker
from aiodocker.containers import DockerContainer

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import (
    InvalidArgumentError,
    IsolationUnavailableError,
    ProviderUnavailableError,
)
from agentic_isolation.models import (
    Isolation,
    NetworkMode,
    ProviderInfo,
    ResourceUsage,
    SecurityConfig,
    WorkspaceConfig,
)
from agentic_isolation_service.core.ports import ByteStream, Place, PlaceSpec
from agentic_isolation_service.guest.binary import guest_binary
from agentic_isolation_service.providers.docker.bridge import BridgeStream
from agentic_isolation_service.providers.docker.container import (
    DEFAULT_CPU_MILLIS,
    DEFAULT_DISK_BYTES,
    DEFAULT_MEMORY_BYTES,
    DEFAULT_OPEN_FILES,
    DEFAULT_USER,
    GUEST_DIRECTORY,
    GVISOR_RUNTIME,
    HOME,
    LABEL,
    ContainerPlan,
    ErrandPlan,
    container_config,
    container_name,
)
from agentic_isolation_service.providers.docker.engine import CALL_TIMEOUT, Engine
from agentic_isolation_service.providers.docker.guest_volume import ensure_guest_volume
from agentic_isolation_service.providers.docker.images import ensure_image
from agentic_isolation_service.providers.docker.isolation import read_back
from agentic_isolation_service.providers.docker.network import Networks

_REMOVAL_TIMEOUT = 30.0
_POLL = 0.05
_ERRAND_RUNTIME = "runc"
_RESERVED = (
    "/",
    "/proc",
    "/sys",
    "/dev",
    "/etc",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/tmp",
    GUEST_DIRECTORY,
    HOME,
)


class DockerProvider:
    """Makes containers on one engine.

    Args:
        host: The engine, as DOCKER_HOST spells it; None: DOCKER_HOST, else the standard socket.
        default_image: Image of workspaces that name none.
        labels: Put on everything that is created, beside the provider's own.
        dns: Name servers of workspaces with a network; none: the engine's.
    """

    name = "docker"

    def __init__(
        self,
        host: str | None = None,
        *,
        default_image: str,
        labels: Mapping[str, str] | None = None,
        dns: Sequence[str] = (),
    ) -> None:
        self._engine = Engine(host)
        self._default_image = default_image
        self._labels = {LABEL: "workspace", **(labels or {})}
        self._guest_volume: str | None = None
        self._filling = asyncio.Lock()
        self._networks = Networks(dns)

    def check(self, config: WorkspaceConfig) -> None:
        """Refuses a working directory that would hide what the container needs."""
        working_dir = config.working_dir.rstrip("/") or "/"
        if working_dir in _RESERVED or working_dir.startswith(("/proc/", "/sys/", "/dev/", f"{GUEST_DIRECTORY}/")):
            raise InvalidArgumentError(
                f"{config.working_dir!r} is the system's; use a directory of its own such as /workspace",
                field="working_dir",
            )

    async def create(self, spec: PlaceSpec) -> Place:
        """Creates and starts the container."""
        image = spec.config.image or self._default_image
        async with self._engine.client() as client:
            runtime = await self._runtime(spec.config.security or SecurityConfig.production())
            await ensure_image(client, image)
            plan = ContainerPlan(spec, image, runtime, await self._volume(client, image), self._labels)
            if spec.config.limits is not None and spec.config.limits.network:
                plan = await self._with_network(client, plan)
            place = Place(spec.workspace_id, runtime=runtime or (await self._engine.facts()).default_runtime)
            try:
                await self._start(client, plan)
            except BaseException:
                await finish(self._remove(client, spec.workspace_id))
                raise
        return place

    async def connect(self, place: Place) -> ByteStream:
        """Starts a bridge in the container."""
        try:
            async with self._engine.client() as client:
                return await BridgeStream.open(client.containers.container(container_name(place.workspace_id)))
        except aiodocker.DockerError as error:
            raise ConnectionError(f"its container is gone: {error.message}") from error

    async def destroy(self, place: Place) -> None:
        """Removes the container with its volumes, and waits until the engine has none of that name."""
        async with self._engine.client() as client:
            await self._remove(client, place.workspace_id)

    async def isolation(self, place: Place, measured: Isolation) -> Isolation:
        """Returns what the guest measured, with the limits that the engine holds."""
        async with self._engine.client() as client:
            container = await client.containers.container(container_name(place.workspace_id)).show()
        targets = [mount["Target"] for mount in container["HostConfig"].get("Mounts", [])]
        working_dir = next((target for target in targets if target != GUEST_DIRECTORY), "")
        return read_back(measured, container, working_dir)

    async def usage(self, place: Place) -> ResourceUsage:
        """Returns what the engine's cgroup statistics say."""
        try:
            async with self._engine.client() as client, asyncio.timeout(CALL_TIMEOUT):
                path = f"containers/{container_name(place.workspace_id)}/stats"
                stats = await client._query_json(path, params={"stream": "0", "one-shot": "1"})
        except aiodocker.DockerError:
            return ResourceUsage()
        memory, cpu, pids = stats.get("memory_stats", {}), stats.get("cpu_stats", {}), stats.get("pids_stats", {})
        total = cpu.get("cpu_usage", {}).get("total_usage")
        return ResourceUsage(
            memory_bytes=memory.get("usage"),
            cpu_seconds=None if total is None else total / 1e9,
            pids=pids.get("current"),
        )

    async def describe(self) -> ProviderInfo:
        """Returns what a workspace that asks for nothing gets on this engine."""
        try:
            facts = await self._engine.facts()
            guest_binary("linux", facts.architecture)
        except ProviderUnavailableError as error:
            return ProviderInfo(self.name, available=False, unavailable_reason=str(error))
        production = SecurityConfig.production()
        isolation = Isolation(
            runtime=GVISOR_RUNTIME if GVISOR_RUNTIME in facts.runtimes else facts.default_runtime,
            user=DEFAULT_USER,
            no_new_privileges=True,
            seccomp="filter",
            read_only_root=True,
            network=NetworkMode.NONE,
            cpu_millis=DEFAULT_CPU_MILLIS,
            memory_bytes=DEFAULT_MEMORY_BYTES,
            disk_bytes=DEFAULT_DISK_BYTES,
            open_files=DEFAULT_OPEN_FILES,
            pids_limit=production.pids_limit,
        )
        return ProviderInfo(self.name, available=True, isolation=isolation)

    async def aclose(self) -> None:
        """Closes the connection to the engine. Containers stay."""
        await self._engine.aclose()

    async def _runtime(self, security: SecurityConfig) -> str:
        facts = await self._engine.facts()
        available = GVISOR_RUNTIME in facts.runtimes
        if security.use_gvisor and not available:
            known = ", ".join(sorted(facts.runtimes)) or "none"
            raise IsolationUnavailableError(
                f"the Docker Engine at {self._engine.host} has no gVisor (its runtimes: {known}); install runsc and "
                "register it with `runsc install`, or leave use_gvisor unset to take what there is",
                field="security.use_gvisor",
            )
        return GVISOR_RUNTIME if available and security.use_gvisor is not False else ""

    async def _volume(self, client: aiodocker.Docker, image: str) -> str:
        async with self._filling:
            if self._guest_volume is None:
                binary = guest_binary("linux", (await self._engine.facts()).architecture)
                self._guest_volume = await ensure_guest_volume(client, binary, image)
            return self._guest_volume

    async def _with_network(self, client: aiodocker.Docker, plan: ContainerPlan) -> ContainerPlan:
        # gVisor has a network of its own, in which an errand would change nothing of the host's.
        runtime = _ERRAND_RUNTIME if _ERRAND_RUNTIME in (await self._engine.facts()).runtimes else ""
        errand = ErrandPlan(plan.image, runtime, plan.guest_volume, self._labels)
        network = await self._networks.ensure(client, errand)
        return replace(plan, network_id=network.id, resolvers=network.resolvers)

    async def _start(self, client: aiodocker.Docker, plan: ContainerPlan) -> None:
        try:
            container = await client.containers.create(
                cast(Mapping[str, Any], container_config(plan)), name=container_name(plan.spec.workspace_id)
            )
            await container.start()
        except aiodocker.DockerError as error:
            if error.status >= 500:
                raise
            raise IsolationUnavailableError(f"the engine refused the container: {error.message}") from error

    async def _remove(self, client: aiodocker.Docker, workspace_id: str) -> None:
        container: DockerContainer = client.containers.container(container_name(workspace_id))
        async with asyncio.timeout(_REMOVAL_TIMEOUT):
            while True:
                # 409: its removal is under way, by itself (AutoRemove) or by somebody else.
                with contextlib.suppress(aiodocker.DockerError):
                    await container.delete(force=True, v=True)
                try:
                    await container.show()
                except aiodocker.DockerError as error:
                    if error.status == 404:
                        return
                    raise
                await asyncio.sleep(_POLL)
